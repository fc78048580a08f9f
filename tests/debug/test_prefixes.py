from __future__ import annotations

from penstock.debug.prefixes import Seen, common, report
from penstock.observe.reader import Log


def test_ideal_is_never_less_than_actual(log: Log) -> None:
    found = report(log)
    assert len(found.reuses) == 69
    assert all(reuse.ideal >= reuse.actual for reuse in found.reuses)
    assert 0 < found.actual <= found.ideal < 1


def test_turns_of_sessions(log: Log) -> None:
    found = report(log).turns
    assert len(found) == 6
    assert all(turn.whole for turn in found)
    assert all(turn.record.cached_tokens > 0 for turn in found)


def test_prefixes_are_told_apart() -> None:
    seen = Seen()
    seen.add("", [1, 2, 3])
    assert (seen.match("", [1, 2, 4]), seen.match("", [2]), seen.match("s", [1])) == (2, 0, 0)
    assert (common([1, 2], [1, 2, 3]), common([1, 5], [1, 2]), common([], [1])) == (2, 1, 0)
