"""Faults that show beside a peer: replicas that differ, one that is slow, a revision that is."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

from penstock.core.records import Header
from penstock.debug.findings import Finding, Rule
from penstock.observe.reader import Log, StepRow
from penstock.report.stats import median

SLOWER = 1.1
"""A replica or revision this many times slower is one to look at …"""
ERRORS = 4.0
"""… if that is so many standard errors."""
LEAST_STEPS = 20
"""of one batch size, on both sides"""
ANSWERS = ("weights", "model_config", "tokenizer", "template")
"""Fingerprints that change answers."""


def _life(log: Log, start: str) -> tuple[float, float]:
    """When a process served, in Unix time."""
    times = [r.received_s for r in log.requests if r.start == start]
    ends = [r.received_s + (r.sent or r.ended or 0.0) for r in log.requests if r.start == start]
    return min(times, default=math.inf), max(ends, default=-math.inf)


def _pairs(log: Log) -> list[tuple[Header, Header, bool]]:
    """(earlier, later, whether they served at the same time) of starts that served."""
    heads = sorted(log.headers.values(), key=lambda h: h.wall_s)
    lives = {h.start: _life(log, h.start) for h in heads}
    heads = [h for h in heads if lives[h.start][0] < math.inf]
    found = []
    for place, later in enumerate(heads):
        for earlier in heads[:place]:
            (a0, a1), (b0, b1) = lives[earlier.start], lives[later.start]
            found.append((earlier, later, a0 <= b1 and b0 <= a1))
    return found


def _differing(one: Header, other: Header) -> list[str]:
    names = one.hashes.keys() & other.hashes.keys()
    return sorted(name for name in names if one.hashes[name] != other.hashes[name])


def replicas_differ(log: Log) -> Finding | None:
    """Replicas that serve at the same time have another model, tokenizer, template or config."""
    for one, other, together in _pairs(log):
        names = [n for n in _differing(one, other) if n in (*ANSWERS, "config")]
        same_name = bool(_models(log, one.start) & _models(log, other.start))
        if together and names and same_name:
            return Finding(
                "replicas-differ",
                f"{one.start} and {other.start} serve together, but differ in {', '.join(names)}.",
                "A deployment that reached one of them only, or requests routed to another pool.",
                "Deploy one revision; compare the headers of the two logs.",
                [r.id for r in log.requests if r.start == other.start][:5],
                {"differ": names},
            )
    return None


def _models(log: Log, start: str) -> set[str]:
    return {r.model for r in log.requests if r.start == start}


def revision_drift(log: Log) -> Finding | None:
    """One after the other, two starts have another model, tokenizer or template."""
    for one, other, together in _pairs(log):
        names = [name for name in _differing(one, other) if name in ANSWERS]
        if names and not together:
            return Finding(
                "revision-drift",
                f"From {one.start} to {other.start} changed: {', '.join(names)}.",
                "A new revision of the checkpoint or its files: answers may change.",
                "Pin --revision; run `penstock eval` before a change goes live.",
                [],
                {"differ": names},
            )
    return None


@dataclass(frozen=True, slots=True)
class Slower:
    """One side beside the other, over batch sizes that both had."""

    ratio: float
    errors: float
    """the difference in standard errors"""
    steps: int


def compare(fast: list[StepRow], slow: list[StepRow]) -> Slower | None:
    """Times of pure decode steps at equal batch sizes: how much slower the second side is. None
    without LEAST_STEPS of one size on both sides."""
    sides = [_by_batch(fast), _by_batch(slow)]
    logs, weights, steps = 0.0, 0.0, 0
    variance = 0.0
    for batch in sides[0].keys() & sides[1].keys():
        a, b = sides[0][batch], sides[1][batch]
        if min(len(a), len(b)) < LEAST_STEPS:
            continue
        weight = float(min(len(a), len(b)))
        logs += weight * math.log(median(b) / median(a))
        variance += weight**2 * (_error(a) ** 2 + _error(b) ** 2)
        weights += weight
        steps += len(b)
    if not weights:
        return None
    mean, error = logs / weights, math.sqrt(variance) / weights
    return Slower(math.exp(mean), mean / error if error else math.inf, steps)


def _by_batch(rows: list[StepRow]) -> dict[int, list[float]]:
    found: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        if row.decode_tokens and not row.prefill_tokens and row.device_s > 0:
            found[row.decode_tokens].append(row.device_s)
    return found


def _error(values: list[float]) -> float:
    """Standard error of the logarithm of the median, from the spread about it."""
    middle = median(values)
    deviation = 1.4826 * median([abs(math.log(value / middle)) for value in values])
    return 1.2533 * deviation / math.sqrt(len(values))


def slow_replica(log: Log) -> Finding | None:
    """An engine takes longer than its peers for steps of the same size."""
    for (start, engine), table in log.steps.items():
        peers: list[StepRow] = []
        for (other, index), rows in log.steps.items():
            if (other, index) != (start, engine) and _peers(log, start, other):
                peers += rows.rows
        found = compare(peers, table.rows)
        if found is not None and found.ratio >= SLOWER and found.errors >= ERRORS:
            percent = 100 * (found.ratio - 1)
            return Finding(
                "slow-replica",
                f"Engine {engine} of {start} takes {percent:.0f} % longer than its peers for steps "
                f"of the same size ({found.steps} steps, {found.errors:.0f} standard errors).",
                "Its clock, power, temperature, NUMA node or neighbours; or a slower rank.",
                "Compare the telemetry of the two; move it to another host.",
                [],
                {"ratio": round(found.ratio, 3), "errors": round(found.errors, 1)},
            )
    return None


def _peers(log: Log, start: str, other: str) -> bool:
    """Whether two processes are the same revision and serve at the same time."""
    if start == other:
        return True
    for one, two, together in _pairs(log):
        if {one.start, two.start} == {start, other}:
            return together and not _differing(one, two)
    return False


def slower_revision(log: Log) -> Finding | None:
    """After a change of revision or configuration, steps of the same size take longer."""
    for one, other, together in _pairs(log):
        names = _differing(one, other)
        if together or not names:
            continue
        sides = [
            [
                row
                for (start, _), table in log.steps.items()
                if start == head.start
                for row in table.rows
            ]
            for head in (one, other)
        ]
        found = compare(*sides)
        if found is not None and found.ratio >= SLOWER and found.errors >= ERRORS:
            percent = 100 * (found.ratio - 1)
            return Finding(
                "slower-revision",
                f"Since {other.start} steps of the same size take {percent:.0f} % longer than in "
                f"{one.start}; changed: {', '.join(names)}.",
                "The change that these fingerprints name.",
                "Go back to the earlier one, or bisect between the two.",
                [],
                {"ratio": round(found.ratio, 3), "changed": names},
            )
    return None


RULES: dict[str, Rule] = {
    "replicas-differ": replicas_differ,
    "revision-drift": revision_drift,
    "slow-replica": slow_replica,
    "slower-revision": slower_revision,
}
