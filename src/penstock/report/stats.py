"""Percentiles, medians and ratios: defined once, for every table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass


def percentile(values: Sequence[float], q: float) -> float:
    """The q-th percentile, 0 <= q <= 100, linear between neighbours (numpy's way); nan if empty."""
    if not values:
        return math.nan
    ordered = sorted(values)
    place = (len(ordered) - 1) * q / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def median(values: Sequence[float]) -> float:
    return percentile(values, 50)


@dataclass(frozen=True, slots=True)
class Spread:
    """How a set of figures lies; all in the unit of the figures, nan when there are none."""

    count: int
    mean: float
    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        mean = math.fsum(values) / len(values) if values else math.nan
        p50, p95, p99 = (percentile(values, q) for q in (50, 95, 99))
        return cls(len(values), mean, p50, p95, p99)

    def to_dict(self) -> dict[str, float | None]:
        """Plain data for JSON, which has no nan."""
        return {name: None if value != value else value for name, value in asdict(self).items()}

    def scaled(self, factor: float) -> Spread:
        """The same figures in another unit."""
        return Spread(
            self.count, self.mean * factor, self.p50 * factor, self.p95 * factor, self.p99 * factor
        )
