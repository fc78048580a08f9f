"""What the scheduler tells of those who wait: why the queue stands, and what was computed."""

from __future__ import annotations

from penstock.core.blocks import BlockPool
from penstock.core.clock import ManualClock
from penstock.core.events import Blocked, Chunk, Event, Held, Released, WaitReason
from penstock.core.limits import Limits
from penstock.core.policy import fcfs
from penstock.core.scheduler import Scheduler
from tests.fakes import FULL, FakeExecutor, submission


class Stage:
    """A scheduler over a scripted executor; a second passes each step."""

    def __init__(self, blocks: int = 64, slots: int = 8, tokens: int = 64) -> None:
        self.clock = ManualClock()
        pool = BlockPool(blocks, 4, True)
        limits = Limits(slots, tokens, 256)
        self.scheduler = Scheduler(limits, pool, FULL, fcfs, self.clock)
        self.executor = FakeExecutor(FULL, 4)
        self.seen: list[Event] = []

    def step(self, steps: int = 1) -> None:
        for _ in range(steps):
            self.clock.advance(1.0)
            plan = self.scheduler.schedule()
            if plan.slots:
                self.executor.submit(plan)
                self.scheduler.apply(self.executor.collect())
            self.seen += self.scheduler.take_events()

    def run(self) -> None:
        while self.scheduler.has_work:
            self.step()

    def of(self, kind: type) -> list[Event]:
        return [event for event in self.seen if type(event) is kind]


def reasons(stage: Stage) -> list[tuple[WaitReason | None, str, str]]:
    found = [event for event in stage.seen if isinstance(event, Blocked)]
    return [(event.reason, event.head, event.behind) for event in found]


def test_no_slot_is_said_once_until_it_changes() -> None:
    stage = Stage(slots=1)
    for name, first in (("a", 0), ("b", 10), ("c", 20)):
        stage.scheduler.add(submission(name, range(first, first + 4), max_tokens=5))
    stage.run()
    assert reasons(stage) == [
        (WaitReason.SLOTS, "b", "a"),
        (WaitReason.SLOTS, "c", "b"),
        (None, "", ""),
    ]


def test_the_token_budget_of_a_step() -> None:
    stage = Stage(tokens=8)
    stage.scheduler.add(submission("long", range(20), max_tokens=1))
    stage.scheduler.add(submission("next", range(30, 34), max_tokens=1))
    stage.run()
    assert reasons(stage)[0] == (WaitReason.TOKENS, "next", "long")
    chunks = [event for event in stage.seen if isinstance(event, Chunk) and event.id == "long"]
    assert [(chunk.start, chunk.count) for chunk in chunks] == [(0, 8), (8, 8), (16, 4)]
    assert [chunk.at for chunk in chunks] == [1.0, 2.0, 3.0]


def test_a_full_cache() -> None:
    stage = Stage(blocks=6)
    stage.scheduler.add(submission("a", range(12), max_tokens=6))
    stage.scheduler.add(submission("b", range(20, 32), max_tokens=6))
    stage.run()
    assert (WaitReason.BLOCKS, "b", "a") in reasons(stage)
    assert reasons(stage)[-1] == (None, "", "")


def test_nobody_waits_nothing_is_said() -> None:
    stage = Stage()
    stage.scheduler.add(submission("a", range(4), max_tokens=4))
    stage.run()
    assert reasons(stage) == []
    assert len(stage.of(Chunk)) == 1


def test_held_requests_are_released() -> None:
    stage = Stage()
    stage.scheduler.add(submission("a", range(17), max_tokens=2))
    stage.scheduler.add(submission("b", range(17), max_tokens=2))
    stage.run()
    (held,), (released,) = stage.of(Held), stage.of(Released)
    assert (held.id, released.id) == ("b", "b")
