from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.core.affinity import PrefixIndex, Sessions

CHAIN = [bytes([i]) for i in range(200)]


@given(st.dictionaries(st.integers(0, 63), st.integers(1, 200), max_size=12), st.integers(0, 200))
def test_depths_are_what_a_scan_finds(held: dict[int, int], asked: int) -> None:
    index = PrefixIndex()
    for engine, depth in held.items():
        index.stored(engine, CHAIN[:depth])
    expected = {e: min(depth, asked) for e, depth in held.items() if asked}
    assert index.depths(CHAIN[:asked]) == expected


def test_what_is_lost_is_no_longer_found() -> None:
    index = PrefixIndex()
    index.stored(0, CHAIN[:8])
    index.stored(1, CHAIN[:4])
    index.removed(0, CHAIN[6:8])
    assert index.depths(CHAIN[:10]) == {0: 6, 1: 4}
    index.clear(0)
    assert index.depths(CHAIN[:10]) == {1: 4}
    index.clear(1)
    assert len(index) == 0


def test_what_was_sent_counts_until_it_is_settled() -> None:
    index = PrefixIndex()
    index.sent(2, CHAIN[:6])
    assert index.depths(CHAIN[:9]) == {2: 6}
    index.stored(2, CHAIN[:5])
    index.settled(2, CHAIN[:6])
    assert index.depths(CHAIN[:9]) == {2: 5}


def test_sendings_are_bounded_and_the_oldest_go_first() -> None:
    index = PrefixIndex(max_sent=10)
    index.sent(0, CHAIN[:5])
    index.sent(1, CHAIN[100:105])
    index.sent(0, CHAIN[:5])
    index.sent(2, CHAIN[50:53])
    assert len(index) == 10
    assert index.depths(CHAIN[:5]) == {0: 5}
    assert index.depths(CHAIN[100:105]) == {}


def test_sessions_are_bounded_and_forget_an_engine() -> None:
    sessions = Sessions(limit=2)
    for name, engine in (("a", 0), ("b", 1), ("a", 2), ("c", 1)):
        sessions.put(name, engine)
    assert [sessions.get(name) for name in "abc"] == [2, None, 1]
    sessions.drop(1)
    assert sessions.get("c") is None
