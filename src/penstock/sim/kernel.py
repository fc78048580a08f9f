"""Virtual time: what is to happen when, in order."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from penstock.errors import PenstockError

ARRIVAL, REST = 0, 1
"""Of several things at one instant, arrivals come first: a step that ends just then sees them."""

Action = Callable[..., None]


class Kernel:
    """A clock, and a queue of actions. Equal instants keep the order in which they were told."""

    def __init__(self, start_s: float = 0.0) -> None:
        self._now = start_s
        self._serial = 0
        self._queue: list[tuple[float, int, int, Action, Any]] = []
        self.executed = 0

    def now(self) -> float:
        return self._now

    @property
    def pending(self) -> bool:
        """Whether anything is to happen yet."""
        return bool(self._queue)

    def at(self, when_s: float, action: Action, given: Any = None, rank: int = REST) -> None:
        """Call action(given) at that time. What is no longer to happen, the action itself must
        know."""
        self._serial += 1
        heapq.heappush(self._queue, (when_s, rank, self._serial, action, given))

    def run(self, until_s: float | None = None) -> None:
        """Go on until nothing is left to do, or to that time. Raises PenstockError when told to do
        something in the past."""
        queue = self._queue
        while queue and (until_s is None or queue[0][0] <= until_s):
            when_s, _, _, action, given = heapq.heappop(queue)
            if when_s < self._now - 1e-9:
                raise PenstockError(f"virtual time would run backwards: {when_s} < {self._now}")
            self._now = max(self._now, when_s)
            self.executed += 1
            action(given)
        if until_s is not None:
            self._now = max(self._now, until_s)
