"""Random numbers that are handed in: a counter-based source, and the shapes drawn from it.

SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014), as in
`engine.random`: a number depends on (seed, stream, counter) alone, so the content of session 7 is
the same whether or not session 6 was drawn.
"""

from __future__ import annotations

import math

_MASK = 2**64 - 1
_GAMMA = 0x9E3779B97F4A7C15
Z95 = 1.6448536269514722
"""the standard normal's 95th percentile"""


def mix(z: int) -> int:
    """A 64-bit hash of a 64-bit number."""
    z &= _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


class Draws:
    """One stream of numbers, named by a seed and any further whole numbers."""

    __slots__ = ("_counter", "_state")

    def __init__(self, seed: int, *names: int) -> None:
        state = mix(seed + _GAMMA)
        for name in names:
            state = mix(state + (name + 1) * _GAMMA)
        self._state = state
        self._counter = 0

    def bits(self) -> int:
        """The next 64 bits."""
        self._counter += 1
        return mix(self._state + self._counter * _GAMMA)

    def uniform(self) -> float:
        """In the open interval (0, 1), so that a logarithm of it exists."""
        return ((self.bits() >> 11) + 0.5) * 2.0**-53

    def exponential(self) -> float:
        """Mean 1."""
        return -math.log(self.uniform())

    def normal(self) -> float:
        return inverse_normal(self.uniform())

    def gamma(self, shape: float) -> float:
        """Mean `shape`. Marsaglia and Tsang, A Simple Method for Generating Gamma Variables, 2000;
        shapes below 1 by their power-of-uniform boost."""
        if shape < 1:
            return self.gamma(shape + 1) * math.pow(self.uniform(), 1 / shape)
        d = shape - 1 / 3
        c = 1 / math.sqrt(9 * d)
        while True:
            x = self.normal()
            v = (1 + c * x) ** 3
            if v > 0 and math.log(self.uniform()) < 0.5 * x * x + d - d * v + d * math.log(v):
                return d * v

    def pick(self, cumulative: list[float]) -> int:
        """An index, by running totals of weights that need not sum to 1."""
        wanted = self.uniform() * cumulative[-1]
        return next(i for i, total in enumerate(cumulative) if wanted <= total)


STRATA = 256


def spread_pair(seed: int, number: int) -> tuple[float, float]:
    """Two independent uniform numbers of sample `number`, evenly spread over each STRATA samples.

    Within a block the points are a Hammersley set, which fills the unit square evenly, in a random
    order: totals over a few samples vary as if the numbers were independent, while over many
    samples quantiles converge far faster. Few long sessions then still have the right lengths.
    """
    block, place = divmod(number, STRATA)
    key = mix(seed + (block + 1) * _GAMMA)
    left, right = divmod(place, 16)
    for turn in range(4):  # a Feistel network permutes the places
        left, right = right, left ^ (mix(key + (right + 16 * turn + 1) * _GAMMA) & 15)
    place = 16 * left + right
    jitter = Draws(key, number)
    mirrored = int(f"{place:08b}"[::-1], 2) ^ (key >> 32 & (STRATA - 1))
    return (place + jitter.uniform()) / STRATA, (mirrored + jitter.uniform()) / STRATA


def normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


_A = (-39.69683028665376, 220.9460984245205, -275.9285104469687,
      138.3577518672690, -30.66479806614716, 2.506628277459239)  # fmt: skip
_B = (-54.47609879822406, 161.5858368580409, -155.6989798598866,
      66.80131188771972, -13.28068155288572, 1.0)  # fmt: skip
_C = (-0.007784894002430293, -0.3223964580411365, -2.400758277161838,
      -2.549732539343734, 4.374664141464968, 2.938163982698783)  # fmt: skip
_D = (0.007784695709041462, 0.3224671290700398, 2.445134137142996, 3.754408661907416, 1.0)


def inverse_normal(p: float) -> float:
    """The standard normal's p-quantile, 0 < p < 1, to about 1e-15.

    Acklam's rational approximation (relative error 1e-9), then one step of Halley's rule.
    """
    p = max(p, 1e-300)
    if p < 0.02425:
        q = math.sqrt(-2 * math.log(p))
        x = _polynomial(_C, q) / _polynomial(_D, q)
    elif p > 1 - 0.02425:
        return -inverse_normal(1 - p)
    else:
        q = p - 0.5
        x = q * _polynomial(_A, q * q) / _polynomial(_B, q * q)
    u = (normal_cdf(x) - p) * math.sqrt(2 * math.pi) * math.exp(x * x / 2)
    return x - u / (1 + x * u / 2)


def _polynomial(coefficients: tuple[float, ...], x: float) -> float:
    value = 0.0
    for coefficient in coefficients:
        value = value * x + coefficient
    return value
