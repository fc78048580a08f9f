"""Two runs side by side: how much each figure changed, and whether that can be chance.

Latencies by the Mann-Whitney U test (no assumption on their distribution), shares by the two-sample
test of proportions, throughput by Welch's test over equal stretches of time. One p-value a figure;
several figures are compared, so that `SIGNIFICANT` is set below the usual 5%.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import RenderableType

from penstock.report.run import Run, summarise
from penstock.report.stats import median, percentile
from penstock.report.tables import number, table

SIGNIFICANT = 0.01
STRETCHES = 20


@dataclass(frozen=True, slots=True)
class Change:
    """One figure of both runs; nan where a run does not have it."""

    name: str
    before: float
    after: float
    p_value: float
    lower_is_better: bool

    @property
    def word(self) -> str:
        """better, worse, or same (which may also mean: too little to tell)"""
        if not self.p_value < SIGNIFICANT or self.before == self.after:
            return "same"
        return "better" if (self.after < self.before) == self.lower_is_better else "worse"


def compare(before: Run, after: Run) -> list[Change]:
    """Raises ConfigError when a run has no request in its measured span."""
    changes = []
    for name, label in (("ttft_s", "TTFT"), ("tpot_s", "TPOT"), ("e2e_s", "end to end")):
        one, two = ([v for r in run.counted if r.answered and (v := getattr(r, name)) is not None]
                    for run in (before, after))  # fmt: skip
        p_value = mann_whitney(one, two)
        changes.append(Change(f"{label} p50, s", median(one), median(two), p_value, True))
        tails = percentile(one, 99), percentile(two, 99)
        changes.append(Change(f"{label} p99, s", tails[0], tails[1], _tail(one, two), True))
    first, second = summarise(before), summarise(after)
    n, m = first.requests, second.requests
    goods = [summary.verdict.good if summary.verdict else 0 for summary in (first, second)]
    for label, a, b in (
        ("goodput share", goods[0], goods[1]),
        ("answered share", first.answered, second.answered),
    ):
        changes.append(Change(label, a / n, b / m, proportions(a, n, b, m), False))
    rates = [throughput(run) for run in (before, after)]
    means = [sum(many) / len(many) for many in rates]
    changes.append(Change("output tok/s", means[0], means[1], welch(*rates), False))
    return changes


def _tail(one: Sequence[float], two: Sequence[float]) -> float:
    """Whether values above the common 99th percentile are as frequent in both."""
    limit = percentile([*one, *two], 99)
    high = [sum(value > limit for value in many) for many in (one, two)]
    return proportions(high[0], len(one), high[1], len(two))


def throughput(run: Run) -> list[float]:
    """Output tokens/s in each of equal stretches of the measured span, by when answers ended."""
    step = run.span_s / STRETCHES
    sums = [0.0] * STRETCHES
    for record in run.records:
        place = math.floor(((record.end_s or 0.0) - run.begin_s) / step)
        if record.answered and 0 <= place < STRETCHES:
            sums[place] += record.output_tokens
    return [total / step for total in sums]


def mann_whitney(one: Sequence[float], two: Sequence[float]) -> float:
    """Two-sided p-value, normal approximation with correction for ties; nan for an empty side."""
    n, m = len(one), len(two)
    if not n or not m:
        return math.nan
    ordered = sorted([(value, 0) for value in one] + [(value, 1) for value in two])
    ranks, ties, start = 0.0, 0.0, 0
    for place in range(1, n + m + 1):
        if place == n + m or ordered[place][0] != ordered[start][0]:
            count = place - start
            ranks += (start + place + 1) / 2 * sum(side == 0 for _, side in ordered[start:place])
            ties += count**3 - count
            start = place
    u = ranks - n * (n + 1) / 2
    total = n + m
    variance = n * m / 12 * (total + 1 - ties / (total * (total - 1)) if total > 1 else 0.0)
    return 1.0 if variance <= 0 else two_sided((u - n * m / 2) / math.sqrt(variance))


def proportions(a: int, n: int, b: int, m: int) -> float:
    """Two-sided p-value of a of n against b of m, by the pooled share; nan for an empty side."""
    if not n or not m:
        return math.nan
    share = (a + b) / (n + m)
    variance = share * (1 - share) * (1 / n + 1 / m)
    return 1.0 if variance == 0 else two_sided((a / n - b / m) / math.sqrt(variance))


def welch(one: Sequence[float], two: Sequence[float]) -> float:
    """Two-sided p-value for equal means; with `STRETCHES` values a side the normal will do."""
    means, errors = [], 0.0
    for many in (one, two):
        mean = sum(many) / len(many)
        means.append(mean)
        errors += sum((value - mean) ** 2 for value in many) / (len(many) - 1) / len(many)
    if errors == 0:
        return 1.0 if means[0] == means[1] else 0.0
    return two_sided((means[0] - means[1]) / math.sqrt(errors))


def two_sided(z: float) -> float:
    """Probability that a standard normal is as far from 0."""
    return math.erfc(abs(z) / math.sqrt(2))


def render(changes: Sequence[Change]) -> RenderableType:
    rows = [
        (
            change.name, number(change.before, 4), number(change.after, 4),
            f"{change.after / change.before - 1:+.1%}" if change.before else "-",
            f"{change.p_value:.2g}", change.word,
        )
        for change in changes
    ]  # fmt: skip
    return table("Before and after", ("", "before", "after", "change", "p", ""), rows)
