"""Which adapters are in the model's slots, and who waits for one.

A step computes with the adapters that are in slots. A request takes one when it starts to run: its
adapter's, or a slot that no running request uses, the one that was left first. Where there is none
it is held; and whoever wants an adapter after it is held behind it, so that a busy adapter does not
keep the others out for ever.
"""

from __future__ import annotations

from penstock.core.plan import AdapterLoad, StepPlan
from penstock.core.request import Request, Submission
from penstock.errors import InvalidFieldError


class AdapterSlots:
    def __init__(self, count: int) -> None:
        self._count = count
        self._empty = list(range(count - 1, -1, -1))
        self._slots: dict[str, int] = {}
        """by digest; those that nobody uses stand in the order in which they were left"""
        self._users: dict[str, int] = {}
        """running requests by digest, above 0"""
        self._held: dict[str, Request] = {}
        """by id"""

    @property
    def num_held(self) -> int:
        return len(self._held)

    def check_possible(self, submission: Submission) -> None:
        """Raise InvalidFieldError for an adapter where there are no slots."""
        if submission.adapter is not None and not self._count:
            raise InvalidFieldError("This engine has no slots for adapters.", param="model")

    def has_room(self, request: Request) -> bool:
        """Whether it may run now."""
        adapter = request.submission.adapter
        if adapter is None:
            return True
        if any(held.order < request.order for held in self._held.values()):
            return False
        resident = adapter.digest in self._slots
        return resident or bool(self._empty) or len(self._users) < len(self._slots)

    def hold_back(self, request: Request) -> bool:
        """Keep a request that may not run now; whether it is kept."""
        if self.has_room(request):
            return False
        self._held[request.id] = request
        return True

    def take(self, request: Request, plan: StepPlan) -> int:
        """The slot for a request that starts to run, -1 without an adapter; the plan says where
        one must be loaded."""
        adapter = request.submission.adapter
        if adapter is None:
            return -1
        digest = adapter.digest
        self._users[digest] = self._users.get(digest, 0) + 1
        if digest in self._slots:
            return self._slots[digest]
        if not self._empty:
            oldest = next(known for known in self._slots if known not in self._users)
            self._empty.append(self._slots.pop(oldest))
        self._slots[digest] = slot = self._empty.pop()
        plan.adapters.append(AdapterLoad(slot, adapter))
        return slot

    def left(self, request: Request) -> list[Request]:
        """It stops to run. Returns those that were held and may look again."""
        if request.submission.adapter is None:
            return []
        digest = request.submission.adapter.digest
        self._users[digest] -= 1
        if self._users[digest]:
            return []
        del self._users[digest]
        self._slots[digest] = self._slots.pop(digest)
        held, self._held = list(self._held.values()), {}
        return held

    def drop(self, request: Request) -> None:
        """A held request ends."""
        del self._held[request.id]

    def check(self, running: list[Request]) -> None:
        """Prove that slots and users balance. Raises AssertionError."""
        wanted: dict[str, int] = {}
        for request in running:
            if request.submission.adapter is not None:
                digest = request.submission.adapter.digest
                wanted[digest] = wanted.get(digest, 0) + 1
        assert wanted == self._users, "users of adapters do not balance"
        assert set(wanted) <= set(self._slots), "a running request has no adapter"
        assert not self._held or self._users, "held, though nobody uses an adapter"
