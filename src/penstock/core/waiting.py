"""The queue of those who wait for a slot: smaller orders first."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from penstock.core.events import Blocked, WaitReason
from penstock.core.request import Request, Status


class Waiting:
    def __init__(self) -> None:
        self._heap: list[tuple[tuple[float, ...], Request]] = []
        self._count = 0
        self._stood: tuple[WaitReason | None, str] = (None, "")
        """what `Blocked` said last"""

    def __len__(self) -> int:
        return self._count

    def push(self, request: Request) -> None:
        request.status = Status.WAITING
        request.hold = None
        heapq.heappush(self._heap, (request.order, request))
        self._count += 1

    def first(self) -> Request | None:
        """Whose turn it is."""
        while self._heap and self._heap[0][1].status is not Status.WAITING:
            heapq.heappop(self._heap)
        return self._heap[0][1] if self._heap else None

    def pop(self) -> None:
        """Take out the one that `first` gave."""
        heapq.heappop(self._heap)
        self._count -= 1

    def left(self) -> None:
        """One that waits ends elsewhere; its place is skipped when it comes up."""
        self._count -= 1

    def stands(
        self, reason: WaitReason | None, running: Sequence[Request], now: float
    ) -> list[Blocked]:
        """Why the queue stands, and behind whom (the first of `running` by order): when that is
        news."""
        first = self.first() if reason else None
        news = (reason, first.id) if first else (None, "")
        if news == self._stood:
            return []
        self._stood = news
        behind = min(running, key=lambda request: request.order).id if first and running else ""
        return [Blocked(now, *news, behind)]

    def check(self) -> None:
        """Raises AssertionError when the count is wrong."""
        waiting = [request for _, request in self._heap if request.status is Status.WAITING]
        assert len(waiting) == self._count, "the waiting count is wrong"
