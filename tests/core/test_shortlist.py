from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from penstock.core.affinity import PrefixIndex, Sessions
from penstock.core.router import Ask
from penstock.core.shortlist import shortlist

CHAIN = [bytes([i]) for i in range(20)]


def bits(engines: list[int]) -> int:
    return sum(1 << engine for engine in engines)


@given(
    st.sets(st.integers(0, 200), min_size=1),
    st.dictionaries(st.integers(0, 200), st.integers(0, 20), max_size=20),
    st.integers(0, 1000),
)
def test_it_names_the_deepest_and_no_one_else_twice(
    alive: set[int], depths: dict[int, int], turn: int
) -> None:
    engines = sorted(alive)
    index, sessions = PrefixIndex(), Sessions()
    for engine, depth in depths.items():
        index.stored(engine, CHAIN[:depth])
    sessions.put("s", 7)
    ask = Ask(400, CHAIN, "s")
    found = shortlist(index, sessions, ask, engines, bits(engines), 8, turn)
    assert len(found) == len(set(found)) == min(8, len(engines))
    assert set(found) <= alive
    if len(engines) > 8:
        known = {engine: depth for engine, depth in depths.items() if engine in alive}
        if most := max(known.values(), default=0):
            assert known.get(found[0]) == most
        assert 7 not in alive or 7 in found


def test_all_have_their_turn() -> None:
    engines = list(range(100))
    counts = Counter(
        engine
        for turn in range(1000)
        for engine in shortlist(
            PrefixIndex(), Sessions(), Ask(10), engines, bits(engines), 10, turn
        )
    )
    assert min(counts.values()) > 50
    assert max(counts.values()) < 200


def test_holders_of_a_common_prefix_share_it() -> None:
    engines = list(range(100))
    index = PrefixIndex()
    for engine in engines:
        index.stored(engine, CHAIN)
    first = Counter(
        shortlist(index, Sessions(), Ask(320, CHAIN), engines, bits(engines), 10, turn)[0]
        for turn in range(1000)
    )
    assert len(first) > 60
