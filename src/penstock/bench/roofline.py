"""What a Penstock server says of its steps: their work, their floor and what bounds them.

Read from /metrics before and after a level: the counters' differences are those of the level, and
of whoever else uses the server meanwhile.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from penstock.bench.http import HttpClient

SAMPLE = re.compile(r"^penstock:(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
BOUND = re.compile(r'bound="(\w+)"')


@dataclass(frozen=True, slots=True)
class Counters:
    """Sums since the server's start, over all its engines."""

    steps: float = 0.0
    step_s: float = 0.0
    bytes_moved: float = 0.0
    operations: float = 0.0
    floor_s: float = 0.0
    bounds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Roofline:
    """Means over the steps of a level."""

    steps: int
    bytes_per_step: float
    operations_per_step: float
    floor_s: float
    """least time of a step on the server's hardware; 0 where it does not know that"""
    measured_s: float
    bound: str
    """memory, compute or host: what bounds most steps; empty as above"""

    @property
    def fraction(self) -> float:
        """Of the measured time that the hardware could not have done without."""
        return self.floor_s / self.measured_s if self.measured_s else 0.0


async def read_counters(client: HttpClient) -> Counters | None:
    """None where the server is not a Penstock that tells."""
    try:
        response = await client.get("/metrics")
    except OSError:
        return None
    return parse(bytes(response.body).decode(errors="replace")) if response.ok else None


def parse(page: str) -> Counters | None:
    """Of a page in Prometheus' text format."""
    sums: dict[str, float] = {}
    bounds: dict[str, float] = {}
    for name, labels, value in SAMPLE.findall(page):
        if name == "step_bound_total" and (found := BOUND.search(labels)):
            bounds[found[1]] = bounds.get(found[1], 0.0) + float(value)
        sums[name] = sums.get(name, 0.0) + float(value)
    if "step_bytes_total" not in sums:
        return None
    return Counters(
        sums.get("steps_total", 0.0),
        sums.get("step_duration_seconds_sum", 0.0),
        sums["step_bytes_total"],
        sums.get("step_operations_total", 0.0),
        sums.get("step_floor_seconds_total", 0.0),
        bounds,
    )


def roofline(before: Counters | None, after: Counters | None) -> Roofline | None:
    """Of the steps between the two; None where there were none, or nobody told."""
    if before is None or after is None or after.steps <= before.steps:
        return None
    steps = after.steps - before.steps
    bounds = {name: many - before.bounds.get(name, 0.0) for name, many in after.bounds.items()}
    return Roofline(
        int(steps),
        (after.bytes_moved - before.bytes_moved) / steps,
        (after.operations - before.operations) / steps,
        (after.floor_s - before.floor_s) / steps,
        (after.step_s - before.step_s) / steps,
        max(bounds, key=lambda name: bounds[name]) if bounds else "",
    )
