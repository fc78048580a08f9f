"""Distributions by their quantiles: tokens, seconds, turns. A mean alone describes no tail."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from penstock.workload.draws import Z95, Draws, inverse_normal, normal_cdf
from penstock.workload.fields import Problem, spec

_NEEDS = {
    "fixed": ("value",),
    "uniform": ("min", "max"),
    "lognormal": ("p50", "p95", "max"),
    "empirical": ("quantiles",),
}


@dataclass(frozen=True, slots=True)
class Distribution:
    """Values of 0 or more. lognormal: through p50 and p95, cut at min and max. empirical: straight
    lines between (share, value) points. uniform: min to max. fixed: one value."""

    kind: str = spec("its shape", default="lognormal", choices=tuple(_NEEDS))
    p50: float | None = spec("median", default=None, minimum=0)
    p95: float | None = spec("95th percentile", default=None, minimum=0)
    max: float | None = spec("largest value", default=None, minimum=0)
    min: float | None = spec("smallest value", default=None, minimum=0)
    value: float | None = spec("the one value of a fixed distribution", default=None, minimum=0)
    mean: float | None = spec("for the reader; the rest decides it", default=None, minimum=0)
    quantiles: tuple[tuple[float, float], ...] = spec(
        "[share, value] points of an empirical distribution, from share 0 to share 1", default=()
    )

    def problems(self) -> Iterator[Problem]:
        """What is missing, too much or impossible."""
        needs = _NEEDS[self.kind]
        given = {
            name
            for name in ("p50", "p95", "max", "min", "value", "quantiles")
            if getattr(self, name) not in (None, ())
        }
        missing = [name for name in needs if name not in given]
        if missing:
            only = "gives only a mean" if self.mean is not None and not given else "is incomplete"
            cause = f"{only}: a {self.kind} distribution needs {', '.join(missing)}."
            yield Problem(missing[0], cause, f"Add {' and '.join(missing)}, or change its kind.")
            return
        extra = given - set(needs) - ({"min"} if self.kind == "lognormal" else set())
        for name in sorted(extra):
            cure = "Remove it, or change the kind."
            yield Problem(name, f"does not belong to a {self.kind} distribution.", cure)
        yield from self._impossible()

    def _impossible(self) -> Iterator[Problem]:
        ordered = [n for n in ("min", "p50", "p95", "max") if getattr(self, n) is not None]
        for low, high in itertools.pairwise(ordered):
            if getattr(self, low) > getattr(self, high):
                cause = f"is {getattr(self, high):g}, below {low} ({getattr(self, low):g})."
                yield Problem(high, cause, "Put them in order: min <= p50 <= p95 <= max.")
        if self.kind == "lognormal" and not self.p50:
            yield Problem("p50", "is 0: no lognormal has that.", "Use fixed, uniform or empirical.")
        shares = [share for share, _ in self.quantiles]
        if not shares:
            return
        if shares[0] != 0 or shares[-1] != 1 or len(shares) < 2:
            cause = "does not go from share 0 to share 1."
            yield Problem("quantiles", cause, "Begin with [0, smallest], end with [1, largest].")
        rising = all(a[0] < b[0] and a[1] <= b[1] for a, b in self._pairs())
        if not rising or self.quantiles[0][1] < 0:
            cause = "is not rising from 0 or more."
            yield Problem("quantiles", cause, "Sort the points; a share may appear once.")

    def _pairs(self) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
        return zip(self.quantiles, self.quantiles[1:], strict=False)

    def quantile(self, share: float) -> float:
        """The value below which that share (0 to 1) of all values lies."""
        if self.kind == "fixed":
            return self._known("value")
        if self.kind == "uniform":
            low = self._known("min")
            return low + (self._known("max") - low) * share
        if self.kind == "empirical":
            return self._interpolated(share)
        low, high = self.min or 0.0, self._known("max")
        if share <= 0 or share >= 1:
            return low if share <= 0 else high
        exact = self._known("p50") * math.exp(self._sigma * inverse_normal(share))
        return min(max(exact, low), high)

    def average(self) -> float:
        """The mean; of a lognormal by closed form, its cut tails included."""
        if self.kind == "fixed":
            return self._known("value")
        if self.kind == "uniform":
            return (self._known("min") + self._known("max")) / 2
        if self.kind == "empirical":
            return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in self._pairs())
        median, sigma = self._known("p50"), self._sigma
        low, high = self.min or 0.0, self._known("max")
        if sigma == 0:
            return median
        a = math.log(low / median) / sigma if low else -math.inf
        b = math.log(high / median) / sigma
        middle = normal_cdf(b - sigma) - (normal_cdf(a - sigma) if low else 0.0)
        below = low * normal_cdf(a) if low else 0.0
        return median * math.exp(sigma**2 / 2) * middle + below + high * (1 - normal_cdf(b))

    def draw(self, draws: Draws) -> float:
        return self.quantile(draws.uniform())

    @property
    def _sigma(self) -> float:
        return math.log(self._known("p95") / self._known("p50")) / Z95

    def _known(self, name: str) -> float:
        value = getattr(self, name)
        assert value is not None, f"checked by problems(): {name}"
        return float(value)

    def _interpolated(self, share: float) -> float:
        shares = [point[0] for point in self.quantiles]
        at = min(max(bisect_right(shares, share), 1), len(shares) - 1)
        (s0, v0), (s1, v1) = self.quantiles[at - 1], self.quantiles[at]
        return v0 + (v1 - v0) * (share - s0) / (s1 - s0)


SHARES = (0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97,
          0.98, 0.99, 0.995, 0.999, 1)  # fmt: skip
"""Points of a fitted distribution: close to each other where the tail decides."""


def empirical(values: Sequence[float]) -> Distribution:
    """The distribution of measured values. Raises ValueError when there are none."""
    if not values:
        raise ValueError("no values to fit")
    ordered = sorted(values)
    last = len(ordered) - 1
    points = tuple((float(share), _at(ordered, share * last)) for share in SHARES)
    if ordered[0] == ordered[-1]:
        return Distribution(kind="fixed", value=float(ordered[0]))
    return Distribution(kind="empirical", quantiles=points)


def _at(ordered: Sequence[float], place: float) -> float:
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return round(ordered[low] + (ordered[high] - ordered[low]) * (place - low), 6)


def draw_pair(
    first: Distribution, second: Distribution, correlation: float, draws: Draws, x: float
) -> tuple[float, float]:
    """Two values that rise and fall together: a Gaussian copula, so that each keeps its own
    distribution. `correlation`: of the underlying normals, -1 to 1; x: the first of them."""
    y = correlation * x + math.sqrt(max(0.0, 1 - correlation**2)) * draws.normal()
    return first.quantile(normal_cdf(x)), second.quantile(normal_cdf(y))
