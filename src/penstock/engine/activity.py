"""What an engine does just now, for the thread that tells its parent (see `pulse`).

A stuck step is one that takes longer than max(5 s, 10 x its predicted time). The prediction is a
running mean of the steps of the same size class (powers of two of their tokens); a class that was
not seen yet is scaled from the nearest one.
"""

from __future__ import annotations

import time

STUCK_S = 5.0
STUCK_FACTOR = 10.0
FIRST_STEP_S = 120.0
"""Limit while nothing was measured: first steps may compile or load libraries."""
WEIGHT = 0.2
"""Of the newest step in the running mean."""


class Pace:
    """Predicted seconds of steps from their number of tokens."""

    def __init__(self) -> None:
        self._means: dict[int, float] = {}

    def note(self, num_tokens: int, seconds: float) -> None:
        size = num_tokens.bit_length()
        mean = self._means.get(size)
        self._means[size] = seconds if mean is None else mean + WEIGHT * (seconds - mean)

    def predict(self, num_tokens: int) -> float | None:
        """None before the first step."""
        if not self._means:
            return None
        size = num_tokens.bit_length()
        nearest = min(self._means, key=lambda seen: (abs(seen - size), seen))
        return self._means[nearest] * 2.0 ** max(0, size - nearest)

    def limit_s(self, num_tokens: int) -> float:
        """When a step of this size is stuck."""
        predicted = self.predict(num_tokens)
        if predicted is None:
            return FIRST_STEP_S
        return max(STUCK_S, STUCK_FACTOR * predicted)


class Activity:
    """Written by the thread that works, read by others: each report replaces one tuple."""

    def __init__(self) -> None:
        self._now: tuple[str, int, float, float] = ("starting", 0, time.monotonic(), 0.0)

    def begin(self, phase: str, number: int = 0, limit_s: float = 0.0) -> None:
        """number: of the step; limit_s: how long the phase may take, 0 = as long as it likes."""
        self._now = (phase, number, time.monotonic(), limit_s)

    @property
    def now(self) -> tuple[str, float, float]:
        """(phase in words, when it began on the monotonic clock, its limit in seconds)."""
        phase, number, since, limit_s = self._now
        return f"{phase} {number}" if number else phase, since, limit_s
