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


@dataclass(frozen=True, slots=True)
class Interval:
    """A percentile with its 95% confidence interval; nan where there is too little to tell."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float | None]:
        """Plain data for JSON, which has no nan."""
        return {name: None if value != value else value for name, value in asdict(self).items()}


Z95 = 1.959963984540054
"""95% of a standard normal lie within it."""


def interval(ordered: Sequence[float], q: float) -> Interval:
    """The q-th percentile of sorted values. Its interval is that of order statistics, which needs
    no assumption on the distribution (the rank of a quantile is binomial; Hahn and Meeker 1991):
    an end is nan where the sample is too small to have one."""
    count = len(ordered)
    if not count:
        return Interval(math.nan, math.nan, math.nan)
    share = q / 100
    spread = Z95 * math.sqrt(count * share * (1 - share))
    low, high = math.floor(count * share - spread), math.ceil(count * share + spread)
    place = (count - 1) * share
    below = math.floor(place)
    above = min(below + 1, count - 1)
    value = ordered[below] + (ordered[above] - ordered[below]) * (place - below)
    return Interval(
        value,
        ordered[low - 1] if low >= 1 else math.nan,
        ordered[high] if high < count else math.nan,
    )


class Histogram:
    """Counts of positive values in bins of equal ratio: percentiles of any number of values in
    constant memory, each within 1%."""

    RATIO = math.log(1.02)

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.total = 0

    def add(self, value: float, count: int = 1) -> None:
        """Values below a microsecond count as one."""
        place = round(math.log(max(value, 1e-6)) / self.RATIO)
        self.counts[place] = self.counts.get(place, 0) + count
        self.total += count

    def percentile(self, q: float) -> float:
        """nan when there is nothing."""
        wanted, seen = q / 100 * self.total, 0
        for place in sorted(self.counts):
            seen += self.counts[place]
            if seen >= wanted:
                return math.exp(place * self.RATIO)
        return math.nan
