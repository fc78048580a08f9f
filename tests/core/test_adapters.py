from __future__ import annotations

import pytest

from penstock.core.adapters import AdapterSlots
from penstock.core.plan import AdapterLoad, StepPlan
from penstock.core.request import Adapter, Request
from penstock.errors import InvalidFieldError
from tests.fakes import submission


def asks(id: str, digest: str | None, order: float) -> Request:
    adapter = None if digest is None else Adapter(digest, f"/{digest}", digest)
    request = Request(submission(id, [1], adapter=adapter), 1, 9)
    request.order = (order,)
    return request


def enter(slots: AdapterSlots, request: Request) -> tuple[int, bool]:
    """The slot, and whether the adapter is to be loaded into it."""
    assert slots.has_room(request)
    plan = StepPlan(0)
    slot = slots.take(request, plan)
    assert plan.adapters in ([], [AdapterLoad(slot, request.submission.adapter)])
    return slot, bool(plan.adapters)


def leave(slots: AdapterSlots, request: Request) -> list[str]:
    return [held.id for held in slots.left(request)]


def test_an_adapter_is_loaded_once_while_it_stays() -> None:
    slots = AdapterSlots(2)
    first, second = asks("1", "a", 1), asks("2", "a", 2)
    assert enter(slots, first) == (0, True)
    assert enter(slots, second) == (0, False)
    slots.check([first, second])
    assert leave(slots, first) == leave(slots, second) == []
    assert enter(slots, asks("3", "a", 3)) == (0, False)


def test_the_one_left_first_makes_way() -> None:
    slots = AdapterSlots(2)
    a, b = asks("1", "a", 1), asks("2", "b", 2)
    for request in (a, b):
        enter(slots, request)
    for request in (b, a):
        leave(slots, request)
    assert enter(slots, asks("3", "c", 3)) == (1, True)
    assert enter(slots, asks("4", "a", 4)) == (0, False)


def test_the_held_are_released_when_a_slot_is_free_and_nobody_overtakes_them() -> None:
    """A stream of requests for a resident adapter would keep the others waiting for ever."""
    slots = AdapterSlots(1)
    running, waits, late = asks("1", "a", 1), asks("2", "b", 2), asks("3", "a", 3)
    enter(slots, running)
    assert slots.hold_back(waits)
    assert slots.hold_back(late)
    assert not slots.hold_back(asks("4", None, 4))
    assert not slots.hold_back(asks("0", "a", 0))  # one that was preempted stands before them
    slots.check([running])
    assert (slots.num_held, leave(slots, running)) == (2, ["2", "3"])
    assert slots.num_held == 0
    assert enter(slots, waits) == (0, True)


def test_a_held_request_may_end() -> None:
    slots = AdapterSlots(1)
    running, waits = asks("1", "a", 1), asks("2", "b", 2)
    enter(slots, running)
    assert slots.hold_back(waits)
    slots.drop(waits)
    assert leave(slots, running) == []


def test_without_slots_an_adapter_is_refused() -> None:
    with pytest.raises(InvalidFieldError, match="no slots"):
        AdapterSlots(0).check_possible(asks("1", "a", 1).submission)
    AdapterSlots(0).check_possible(asks("2", None, 1).submission)
    AdapterSlots(1).check_possible(asks("3", "a", 1).submission)
