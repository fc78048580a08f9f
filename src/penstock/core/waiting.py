"""The queue of those who wait for a slot: a queue a tenant, in the policy's order within each."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

from penstock.core.events import Blocked, WaitReason
from penstock.core.fair import FairShares, Share
from penstock.core.request import Request, Status, Submission

Queue = list[tuple[tuple[float, ...], Request]]


def share_of(submission: Submission) -> Share:
    return submission.background, submission.tenant


class Waiting:
    def __init__(self, fair: FairShares | None = None) -> None:
        self.fair = fair or FairShares()
        self._queues: dict[Share, Queue] = {}
        self._next: Share = (False, "")
        self._count = 0
        self.stood: tuple[WaitReason | None, str] = (None, "")
        """reason and head, as `Blocked` said last"""

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Request]:
        """In no order."""
        everyone = (request for queue in self._queues.values() for _, request in queue)
        return (request for request in everyone if request.status is Status.WAITING)

    def push(self, request: Request) -> None:
        request.status = Status.WAITING
        request.hold = None
        share = share_of(request.submission)
        if share not in self._queues:
            self.fair.comes(share, (other for other in self._queues if other[0] == share[0]))
            self._queues[share] = []
        heapq.heappush(self._queues[share], (request.order, request))
        self._count += 1

    def first(self) -> Request | None:
        """Whose turn it is: background work last, then the tenant that was served least."""
        best: Request | None = None
        for share in list(self._queues):
            queue = self._queues[share]
            while queue and queue[0][1].status is not Status.WAITING:
                heapq.heappop(queue)
            if not queue:
                del self._queues[share]
            elif best is None or self._rank(share) < self._rank(self._next):
                best, self._next = queue[0][1], share
        return best

    def _rank(self, share: Share) -> tuple[bool, float, tuple[float, ...]]:
        return share[0], self.fair.served(share), self._queues[share][0][0]

    def pop(self) -> None:
        """Take out the one that `first` gave."""
        queue = self._queues[self._next]
        heapq.heappop(queue)
        if not queue:
            del self._queues[self._next]
        self._count -= 1

    def left(self) -> None:
        """One that waits ends elsewhere; its place is skipped when it comes up."""
        self._count -= 1

    def charge_prompt(self, request: Request) -> None:
        """It got a slot for the first time."""
        asked = request.submission
        share, tokens = share_of(asked), request.num_prompt
        self.fair.charge_prompt(share, asked.weight, tokens, request.cached_tokens)

    def charge_output(self, request: Request) -> None:
        """It ended."""
        asked = request.submission
        self.fair.charge_output(share_of(asked), asked.weight, request.num_output)

    def stands(
        self, reason: WaitReason | None, running: Sequence[Request], now: float
    ) -> list[Blocked]:
        """Why the queue stands, and behind whom (the first of `running` by order): when that is
        news."""
        first = self.first() if reason else None
        news = (reason, first.id) if first else (None, "")
        if news == self.stood:
            return []
        self.stood = news
        behind = min(running, key=lambda request: request.order).id if first and running else ""
        return [Blocked(now, *news, behind)]

    def check(self) -> None:
        """Raises AssertionError when the count is wrong."""
        assert len(list(self)) == self._count, "the waiting count is wrong"
