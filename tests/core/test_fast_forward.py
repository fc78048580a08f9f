"""Two schedulers in step: one takes every decode step, the other jumps; they must not differ."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock.core.blocks import BlockPool
from penstock.core.clock import ManualClock
from penstock.core.events import CacheChanged, TokensOut
from penstock.core.fast_forward import fast_forward, next_deadline_s, steady_steps
from penstock.core.limits import Limits
from penstock.core.plan import KVGroup, StepResult
from penstock.core.policy import fcfs
from penstock.core.request import Request
from penstock.core.scheduler import Scheduler
from penstock.errors import ContextLengthError
from tests.fakes import FULL, FakeExecutor, continuation, submission

GROUPS = {
    "full": FULL,
    "window": (KVGroup((0,), window=5),),
    "both": (KVGroup((0,)), KVGroup((1,), window=6)),
}
BLOCK = 4
STOP = 49


def state(scheduler: Scheduler) -> dict[str, Any]:
    """All of a scheduler that can make a difference later."""

    def plain(request: Request) -> dict[str, Any]:
        return {name: getattr(request, name) for name in Request.__slots__ if name != "submission"}

    pool = scheduler.pool
    return {
        "requests": {name: plain(r) for name, r in scheduler._requests.items()},
        "prefilling": [r.id for r in scheduler._prefilling],
        "decoding": [r.id for r in scheduler._decoding],
        "waiting": sorted(r.id for r in scheduler._waiting),
        "plans": [(plan, [r.id for r in rows]) for plan, rows in scheduler._in_flight],
        "slots": scheduler._free_slots,
        "stood": scheduler._waiting.stood,
        "counters": scheduler.counters,
        "step": scheduler._step,
        "pool": [pool._refs, pool._free, list(pool._idle), pool._index, pool._key_of],
    }


class Twins(RuleBasedStateMachine):
    @initialize(
        groups=st.sampled_from(sorted(GROUPS)),
        blocks=st.integers(8, 40),
        budget=st.integers(3, 24),
        depth=st.integers(1, 3),
        retain=st.booleans(),
    )
    def start(self, groups: str, blocks: int, budget: int, depth: int, retain: bool) -> None:
        self.clock = ManualClock()
        limits = Limits(4, budget, 64, depth)
        self.slow, self.fast = (
            Scheduler(limits, self._pool(blocks, retain), GROUPS[groups], fcfs, self.clock)
            for _ in range(2)
        )
        self.executor = FakeExecutor(GROUPS[groups], BLOCK)
        self.serial = 0

    @staticmethod
    def _pool(blocks: int, retain: bool) -> BlockPool:
        pool = BlockPool(blocks, BLOCK, retain)
        pool.watch(0)
        return pool

    @rule(
        head=st.integers(0, 2),
        shared=st.integers(0, 12),
        own=st.lists(st.integers(0, 3), min_size=1, max_size=6),
        max_tokens=st.integers(4, 40),
        deadline=st.one_of(st.none(), st.none(), st.floats(1, 60)),
    )
    def add(
        self, head: int, shared: int, own: list[int], max_tokens: int, deadline: float | None
    ) -> None:
        self.serial += 1
        now = self.clock.now()
        until = None if deadline is None else now + deadline
        prompt = [head] * shared + own
        item = submission(f"r{self.serial}", prompt, max_tokens, stop_ids=(STOP,), deadline_s=until)
        for scheduler in (self.slow, self.fast):
            try:
                scheduler.add(item)
            except ContextLengthError:
                return

    @precondition(lambda self: self.slow.has_work)
    @rule(data=st.data(), abort=st.booleans())
    def take_away(self, data: st.DataObject, abort: bool) -> None:
        name = data.draw(st.sampled_from(self.slow.live_ids()))
        for scheduler in (self.slow, self.fast):
            scheduler.abort(name) if abort else scheduler.preempt(name)

    @precondition(lambda self: self.slow.may_schedule)
    @rule()
    def plan_ahead(self) -> None:
        plan = self.slow.schedule()
        assert self.fast.schedule() == plan
        if plan.slots:
            self.executor.submit(plan)

    @rule(steps=st.integers(1, 8))
    def both_step(self, steps: int) -> None:
        for _ in range(steps):
            if self.slow.may_schedule:
                self.plan_ahead()
            self.clock.advance(0.25)
            if self.slow.num_in_flight:
                result = self.executor.collect()
                self.slow.apply(result)
                self.fast.apply(result)
            assert self.slow.take_events() == self.fast.take_events()

    @rule(wanted=st.integers(1, 40), before=st.integers(0, 12))
    def forward(self, wanted: int, before: int) -> None:
        while before and not steady_steps(self.fast):
            self.both_step(1)
            before -= 1
        assert self.slow.take_events() == self.fast.take_events()
        steps = steady_steps(self.fast)
        assert steps == 0 or steps > self.fast.num_in_flight
        rows = list(self.fast._decoding)
        outputs = [continuation(r.tokens, min(steps, wanted), (STOP,)) for r in rows]
        steps = min((len(out) - (STOP in out) for out in outputs), default=0)
        left = (next_deadline_s(self.fast) - self.clock.now()) / 0.25
        steps = min(steps, int(min(left, 1e6)) - 1)
        if steps <= self.fast.num_in_flight:
            return
        outputs = [out[:steps] for out in outputs]
        seen: dict[str, list[int]] = {r.id: [] for r in rows}
        for _ in range(steps):
            plan = self.slow.schedule()
            assert set(plan.counts) == {1}
            assert not plan.entries
            self.executor.submit(plan)
            self.clock.advance(0.25)
            self.slow.apply(self.executor.collect())
            for event in self.slow.take_events():
                if isinstance(event, TokensOut):
                    seen[event.id] += event.tokens
                else:
                    assert isinstance(event, CacheChanged), "not steady"
        assert [seen[r.id] for r in rows] == outputs
        fast_forward(self.fast, outputs)
        self.fast.take_events()

    @invariant()
    def equal(self) -> None:
        if hasattr(self, "slow"):
            assert state(self.slow) == state(self.fast)
            self.fast.check()


Twins.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestTwins = Twins.TestCase


def running(prompt: int, max_tokens: int, count: int, depth: int = 1) -> Scheduler:
    scheduler = Scheduler(
        Limits(4, 1024, 512, depth), BlockPool(64, BLOCK), FULL, fcfs, ManualClock()
    )
    for number in range(count):
        scheduler.add(submission(f"r{number}", [number] * prompt, max_tokens))
    executor = FakeExecutor(FULL, BLOCK)
    for _ in range(2):
        executor.submit(scheduler.schedule())
        scheduler.apply(executor.collect())
    return scheduler


def step(scheduler: Scheduler) -> None:
    plan = scheduler.schedule()
    scheduler.apply(StepResult(plan.step, [[5] for _ in plan.slots]))


def test_it_tells_how_far_it_may_go() -> None:
    """The tests above would pass if nothing were ever steady."""
    scheduler = running(prompt=8, max_tokens=30, count=3)
    assert steady_steps(scheduler) == 30 - 2 - 1
    scheduler.add(submission("late", [1, 2, 3], 4))
    assert steady_steps(scheduler) == 0, "there is a free slot for it"
    scheduler.abort("late")
    assert steady_steps(scheduler) == 27
    fast_forward(scheduler, [[5] * 20] * 3)
    assert steady_steps(scheduler) == 7
    scheduler.check()


def test_it_stops_before_blocks_run_out() -> None:
    scheduler = running(prompt=50, max_tokens=200, count=4)
    steps = steady_steps(scheduler)
    assert 0 < steps < 190
    fast_forward(scheduler, [[5] * steps] * 4)
    assert scheduler.pool.num_available < 4
    assert scheduler.counters.preemptions == 0


def test_a_queue_without_slots_or_room_does_not_disturb() -> None:
    scheduler = running(prompt=8, max_tokens=30, count=4)
    scheduler.add(submission("no slot", [1, 2, 3], 4))
    assert steady_steps(scheduler) == 0, "nobody was told yet why it waits"
    step(scheduler)
    assert steady_steps(scheduler) == 26
    scheduler = running(prompt=60, max_tokens=30, count=3)
    scheduler.add(submission("no room", [9] * 80, 4))
    step(scheduler)
    assert steady_steps(scheduler) > 0
