"""Promises judged: each clause of the SLO in each of its windows, the error budget, and goodput.

The durations are those of `core.timeline`; a `Timeline` is a record. A failed or refused request
has no latency: it counts against availability, and it misses every clause in goodput.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from penstock.workload.definition import Availability, Clause


class Record(Protocol):
    """What is known of one request after it ended. Times in seconds; None: there was none."""

    @property
    def arrived(self) -> float: ...
    @property
    def answered(self) -> bool: ...
    @property
    def ttft_s(self) -> float | None: ...
    @property
    def tpot_s(self) -> float | None: ...
    @property
    def longest_stall_s(self) -> float | None: ...
    @property
    def e2e_s(self) -> float: ...
    @property
    def queue_s(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """A record of one's own: what a load generator or a simulator measured."""

    arrived: float
    """when it was due, not when it was sent: waiting to be sent is latency, too"""
    answered: bool
    e2e_s: float
    ttft_s: float | None = None
    tpot_s: float | None = None
    longest_stall_s: float | None = None
    queue_s: float | None = None


_ATTRIBUTES = {
    "ttft_s": "ttft_s",
    "tpot_s": "tpot_s",
    "itl_s": "longest_stall_s",
    "ttlt_s": "e2e_s",
    "queue_s": "queue_s",
}


def value_of(clause: Clause, record: Record) -> float | None:
    """The metric that the clause is about."""
    value: float | None = getattr(record, _ATTRIBUTES[clause.metric])
    return value


def meets(clause: Clause, record: Record) -> bool:
    """Whether one request kept the limit. A request that has no such figure (one output token has
    no TPOT) keeps it if it was answered."""
    value = value_of(clause, record)
    return record.answered and (value is None or value <= clause.limit_s)


@dataclass(frozen=True, slots=True)
class ClauseResult:
    """One clause over its worst window; seconds, nan when nothing was measured."""

    clause: Clause
    passed: bool
    count: int
    value_s: float
    """the clause's percentile"""
    p50_s: float
    p95_s: float
    p99_s: float
    budget_used: float
    """share of the allowed misses that was used; more than 1 fails"""
    windows: int
    worst_window_s: float
    """start of the worst one, on the records' clock"""

    @property
    def text(self) -> str:
        state = "pass" if self.passed else "FAIL"
        over = self.value_s / self.clause.limit_s - 1
        side = f"{abs(over):.0%} {'over' if over > 0 else 'below'} the limit"
        return f"{state}  {self.clause.name}: {self.value_s:.4g} s, {side}"


@dataclass(frozen=True, slots=True)
class AvailabilityResult:
    """Answers given of answers wanted, in the worst window."""

    passed: bool
    wanted_percent: float
    percent: float
    budget_used: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """All clauses together."""

    clauses: tuple[ClauseResult, ...]
    availability: AvailabilityResult | None
    goodput: float
    """share of all requests inside every clause"""
    good: int
    count: int

    @property
    def passed(self) -> bool:
        kept = all(result.passed for result in self.clauses)
        return kept and (self.availability is None or self.availability.passed)


def judge(
    clauses: Sequence[Clause], records: Iterable[Record], availability: Availability | None = None
) -> Verdict:
    """Judge a run. Raises ValueError when there are no records."""
    found = sorted(records, key=lambda record: record.arrived)
    if not found:
        raise ValueError("no records: nothing was measured, so no promise can be judged")
    good = sum(r.answered and all(meets(clause, r) for clause in clauses) for r in found)
    return Verdict(
        tuple(_judge_clause(clause, found) for clause in clauses),
        _judge_availability(availability, found) if availability else None,
        good / len(found),
        good,
        len(found),
    )


def _windows(found: Sequence[Record], window_s: float | None) -> list[list[Record]]:
    """Tumbling windows from the first arrival; a last one that is not complete joins the one
    before, so that it is not judged on a few requests."""
    if window_s is None:
        return [list(found)]
    first = found[0].arrived
    count = max(1, int((found[-1].arrived - first) // window_s))
    windows: list[list[Record]] = [[] for _ in range(count)]
    for record in found:
        windows[min(int((record.arrived - first) // window_s), count - 1)].append(record)
    return [window for window in windows if window]


def _judge_clause(clause: Clause, found: Sequence[Record]) -> ClauseResult:
    results = []
    windows = _windows(found, clause.window_s)
    for window in windows:
        values = sorted(
            value
            for record in window
            if record.answered and (value := value_of(clause, record)) is not None
        )
        p50, p95, p99, own = (quantile(values, q) for q in (50, 95, 99, clause.percentile))
        missed = sum(value > clause.limit_s for value in values)
        budget = budget_used(missed, len(values), 1 - clause.percentile / 100)
        passed = bool(values) and own <= clause.limit_s
        results.append(
            ClauseResult(
                clause,
                passed,
                len(values),
                own,
                p50,
                p95,
                p99,
                budget,
                len(windows),
                window[0].arrived,
            )
        )
    return max(results, key=lambda r: (not r.passed, -1.0 if math.isnan(r.value_s) else r.value_s))


def _judge_availability(wanted: Availability, found: Sequence[Record]) -> AvailabilityResult:
    results = []
    for window in _windows(found, wanted.window_s):
        failed = sum(not record.answered for record in window)
        percent = 100 * (1 - failed / len(window))
        used = budget_used(failed, len(window), 1 - wanted.percent / 100)
        results.append(AvailabilityResult(percent >= wanted.percent, wanted.percent, percent, used))
    return min(results, key=lambda result: result.percent)


def budget_used(missed: int, count: int, allowed: float) -> float:
    """Share of the error budget: missed requests in proportion to the allowed ones; inf when none
    is allowed and one missed."""
    if not missed:
        return 0.0
    return missed / count / allowed if allowed > 1e-12 else math.inf


def quantile(ordered: Sequence[float], percent: float) -> float:
    """Of sorted values, linear between neighbours; nan when there are none."""
    if not ordered:
        return math.nan
    place = (len(ordered) - 1) * percent / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
