"""How long a step takes, from what it computes: a linear model, fitted as steps are seen.

    seconds = fixed + rows · r + context · c + (any prefill) · f + prefill · p + attended · a

Least squares of relative errors with exponential forgetting; coefficients that would be negative
are left out (Lawson and Hanson's idea in one pass each), since no work takes negative time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from penstock.core.plan import StepPlan

TERMS = ("fixed", "rows", "context", "any_prefill", "prefill", "attended")
FEW = 8
"""Steps before the first prediction."""
EVERY = 16
"""Steps between two fits."""
MEMORY = 2000
"""Steps after which a step's weight has fallen to 1/e."""
RIDGE = 1e-6


class Work(NamedTuple):
    """What a step computes."""

    rows: int = 0
    """requests that decode"""
    context: int = 0
    """keys that they read, together"""
    prefill: int = 0
    """tokens of prompts"""
    attended: int = 0
    """keys that these read, together"""

    def terms(self) -> tuple[float, ...]:
        return (1.0, self.rows, self.context, self.prefill > 0, self.prefill, self.attended)


def work_of(plan: StepPlan) -> Work:
    """Rows of one token count as decoding."""
    rows = context = prefill = attended = 0
    for start, count in zip(plan.starts, plan.counts, strict=True):
        if count == 1:
            rows += 1
            context += start + 1
        else:
            prefill += count
            attended += chunk_attends(start, count)
    return Work(rows, context, prefill, attended)


def chunk_attends(start: int, count: int) -> int:
    """Keys that `count` tokens after `start` known ones read, together."""
    return count * start + count * (count + 1) // 2


@dataclass(frozen=True, slots=True)
class StepTime:
    """A model that is fitted: seconds of each term."""

    weights: tuple[float, ...]

    def seconds(self, work: Work) -> float:
        return sum(w * x for w, x in zip(self.weights, work.terms(), strict=True))


class StepTimes:
    """The model while it learns."""

    def __init__(self) -> None:
        size = len(TERMS)
        self._squares = [[0.0] * size for _ in range(size)]
        self._products = [0.0] * size
        self._count = 0
        self.fitted: StepTime | None = None
        """None until a few steps were seen"""

    def note(self, work: Work, seconds: float) -> None:
        """A step took that long."""
        if seconds <= 0:
            return
        keep = 1 - 1 / MEMORY
        terms = [x / seconds for x in work.terms()]
        for row, x in zip(self._squares, terms, strict=True):
            for column, y in enumerate(terms):
                row[column] = row[column] * keep + x * y
        self._products = [p * keep + x for p, x in zip(self._products, terms, strict=True)]
        self._count += 1
        if self._count == FEW or self._count % EVERY == 0:
            self.fit()

    def fit(self) -> StepTime | None:
        """The model of all that was noted."""
        if self._count:
            self.fitted = StepTime(tuple(_nonnegative(self._squares, self._products)))
        return self.fitted

    def seconds(self, work: Work) -> float | None:
        """None before the first fit."""
        return self.fitted.seconds(work) if self.fitted else None


def fit(steps: Sequence[tuple[Work, float]]) -> StepTime:
    """The model of measured steps, each as important as the others. Raises ValueError when there
    are none."""
    if not steps:
        raise ValueError("no steps to fit")
    size = len(TERMS)
    squares = [[0.0] * size for _ in range(size)]
    products = [0.0] * size
    for work, seconds in steps:
        terms = [x / seconds for x in work.terms()]
        for row, x in zip(squares, terms, strict=True):
            for column, y in enumerate(terms):
                row[column] += x * y
        products = [p + x for p, x in zip(products, terms, strict=True)]
    return StepTime(tuple(_nonnegative(squares, products)))


def _nonnegative(squares: Sequence[Sequence[float]], products: Sequence[float]) -> list[float]:
    """Solve squares · w = products for w >= 0: whatever comes out negative is left out."""
    kept = [i for i in range(len(products)) if squares[i][i] > 0]
    weights = [0.0] * len(products)
    while kept:
        found = _solve(squares, products, kept)
        worst = min(range(len(kept)), key=lambda i: found[i])
        if found[worst] >= 0:
            for i, weight in zip(kept, found, strict=True):
                weights[i] = weight
            break
        del kept[worst]
    return weights


def _solve(
    squares: Sequence[Sequence[float]], products: Sequence[float], kept: list[int]
) -> list[float]:
    """Gaussian elimination, the terms scaled to equal size and a small ridge on the diagonal."""
    scale = {i: squares[i][i] ** -0.5 for i in kept}
    rows = [
        [squares[i][j] * scale[i] * scale[j] + (RIDGE if i == j else 0.0) for j in kept]
        + [products[i] * scale[i]]
        for i in kept
    ]
    size = len(kept)
    for pivot in range(size):
        best = max(range(pivot, size), key=lambda r: abs(rows[r][pivot]))
        rows[pivot], rows[best] = rows[best], rows[pivot]
        for below in range(pivot + 1, size):
            factor = rows[below][pivot] / rows[pivot][pivot]
            rows[below] = [b - factor * p for b, p in zip(rows[below], rows[pivot], strict=True)]
    found = [0.0] * size
    for i in reversed(range(size)):
        rest = sum(rows[i][j] * found[j] for j in range(i + 1, size))
        found[i] = (rows[i][size] - rest) / rows[i][i]
    return [value * scale[i] for i, value in zip(kept, found, strict=True)]
