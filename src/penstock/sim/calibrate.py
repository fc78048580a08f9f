"""What each step of a logged run computed and how long it took, from the log alone.

A step's line tells its time and its tokens; which keys they read follows from the requests' lines:
when each chunk of a prompt was read, and which steps gave which output token.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from penstock.core.step_time import Work, chunk_attends
from penstock.errors import ConfigError
from penstock.sim.costs import FittedCosts, fitted

MAX_STALL = 10.0
"""A step that took so many times the median of its like is a stall of the machine, not a cost."""


def from_log(records: Iterable[dict[str, Any]], engine: int = 0) -> FittedCosts:
    """Costs by the steps of one engine. Raises ConfigError when the log has too few of them."""
    times: dict[int, float] = {}
    works: dict[int, list[int]] = {}
    for record in records:
        kind = record.get("t")
        if kind == "steps" and record.get("engine") == engine:
            times |= {
                step: seconds / 1e6
                for step, seconds in zip(record["step"], record["step_us"], strict=True)
            }
        elif kind == "request" and record.get("engine") == engine:
            for choice in record["choices"]:
                _count(works, choice, int(record["num_prompt"]))
    steps = [(Work(*work), times[step]) for step, work in works.items() if step in times]
    if not steps:
        raise ConfigError(
            "The log has no steps of requests that ended.",
            cure="Log requests and steps of a run with --log-dir.",
            param="calibrate",
        )
    return fitted(_without_stalls(steps))


def _count(works: dict[int, list[int]], choice: dict[str, Any], num_prompt: int) -> None:
    for _, step, start, count in choice["chunks"]:
        work = works.setdefault(step, [0, 0, 0, 0])
        work[2] += count
        work[3] += chunk_attends(start, count)
    known = num_prompt
    read = {chunk[1] for chunk in choice["chunks"]}
    for first, count in choice["steps"]:
        for step in range(first, first + count):
            if step not in read:
                work = works.setdefault(step, [0, 0, 0, 0])
                work[0] += 1
                work[1] += known
            known += 1


def _without_stalls(steps: list[tuple[Work, float]]) -> list[tuple[Work, float]]:
    """By size of the step, in powers of two of its tokens."""
    groups: dict[int, list[float]] = {}
    for work, seconds in steps:
        groups.setdefault((work.rows + work.prefill).bit_length(), []).append(seconds)
    limits = {size: MAX_STALL * sorted(many)[len(many) // 2] for size, many in groups.items()}
    return [
        (work, seconds)
        for work, seconds in steps
        if seconds <= limits[(work.rows + work.prefill).bit_length()]
    ]
