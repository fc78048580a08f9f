"""Hypothesis drives the scheduler with everything at once; a fake executor checks every read."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock.core.blocks import BlockPool
from penstock.core.clock import ManualClock
from penstock.core.events import Finished, TokensOut
from penstock.core.limits import Limits
from penstock.core.plan import KVGroup
from penstock.core.policy import make_policy
from penstock.core.request import Adapter, FinishReason, Submission
from penstock.core.scheduler import Scheduler
from penstock.errors import ContextLengthError
from tests.fakes import FakeExecutor, continuation, submission

GROUPS = {
    "full": (KVGroup((0,)),),
    "window": (KVGroup((0,), window=5),),
    "both": (KVGroup((0,)), KVGroup((1,), window=6)),
}
BLOCK = 4
ADAPTERS = [Adapter(name, f"/{name}", f"digest of {name}") for name in "abc"]


class SchedulerMachine(RuleBasedStateMachine):
    """Requests come (with shared prefixes), are aborted, expire, are preempted for lack of
    blocks. Each ends exactly once, with the fake model's tokens, and all blocks come back."""

    @initialize(
        groups=st.sampled_from(sorted(GROUPS)),
        blocks=st.integers(8, 40),
        budget=st.integers(1, 24),
        depth=st.integers(1, 3),
        stages=st.integers(1, 2),
        retain=st.booleans(),
        policy=st.sampled_from(["fcfs", "priority"]),
        mixed=st.one_of(st.none(), st.integers(1, 24)),
        adapters=st.integers(1, 2),
    )
    def start(self, groups, blocks, budget, depth, stages, retain, policy, mixed, adapters) -> None:
        self.clock = ManualClock()
        self.pool = BlockPool(blocks, BLOCK, retain)
        self.limits = Limits(4, budget, 64, depth, stages, mixed, adapters)
        self.scheduler = Scheduler(
            self.limits, self.pool, GROUPS[groups], make_policy(policy, 5.0), self.clock
        )
        self.executor = FakeExecutor(GROUPS[groups], BLOCK)
        self.asked: dict[str, Submission] = {}
        self.written: dict[str, list[int]] = {}
        self.ended: dict[str, Finished] = {}

    @rule(
        head=st.integers(0, 2),
        shared=st.integers(0, 20),
        own=st.lists(st.integers(0, 3), min_size=1, max_size=6),
        max_tokens=st.one_of(st.none(), st.integers(1, 20)),
        priority=st.integers(0, 2),
        deadline=st.one_of(st.none(), st.floats(0.5, 30)),
        siblings=st.integers(1, 3),
        salt=st.sampled_from(["", "", "tenant"]),
        prompt_logprobs=st.sampled_from([None, None, None, 0]),
        adapter=st.sampled_from([None, None, *ADAPTERS]),
    )
    def add(
        self,
        head,
        shared,
        own,
        max_tokens,
        priority,
        deadline,
        siblings,
        salt,
        prompt_logprobs,
        adapter,
    ) -> None:
        prompt = [head] * shared + own
        now = self.clock.now()
        for choice in range(siblings):
            item = submission(
                f"r{len(self.asked)}",
                prompt,
                max_tokens,
                stop_ids=(49,),
                prompt_logprobs=prompt_logprobs,
                group=f"g{len(self.asked) - choice}" if siblings > 1 else "",
                arrival_s=now,
                priority=priority,
                deadline_s=None if deadline is None else now + deadline,
                cache_salt=salt,
                adapter=adapter,
            )
            try:
                self.scheduler.add(item)
            except ContextLengthError:
                return
            self.asked[item.id] = item
            self.written[item.id] = []

    @precondition(lambda self: self.scheduler.has_work)
    @rule(data=st.data())
    def abort(self, data) -> None:
        assert self.scheduler.abort(data.draw(st.sampled_from(self.scheduler.live_ids())))

    @precondition(lambda self: self.scheduler.has_work)
    @rule(data=st.data())
    def preempt(self, data) -> None:
        self.scheduler.preempt(data.draw(st.sampled_from(self.scheduler.live_ids())))

    @rule(seconds=st.floats(0.1, 3))
    def wait(self, seconds) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: self.scheduler.may_schedule)
    @rule()
    def schedule(self) -> None:
        plan = self.scheduler.schedule()
        assert plan.num_tokens <= self.limits.max_num_batched_tokens
        assert len(set(plan.slots)) == len(plan.slots) <= self.limits.max_num_seqs
        for entry in plan.entries:
            assert (entry.adapter < 0) == (self.asked[entry.id].adapter is None)
        if plan.slots:
            self.executor.submit(plan)

    @precondition(lambda self: self.scheduler.num_in_flight)
    @rule()
    def apply(self) -> None:
        self.scheduler.apply(self.executor.collect())

    @rule(steps=st.integers(1, 12))
    def run(self, steps) -> None:
        for _ in range(steps):
            if self.scheduler.may_schedule:
                self.schedule()
            if self.scheduler.num_in_flight:
                self.apply()

    @invariant()
    def books_balance(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        self.scheduler.check()
        for event in self.scheduler.take_events():
            if isinstance(event, TokensOut):
                assert event.id not in self.ended, "tokens after the end"
                self.written[event.id] += event.tokens
            if isinstance(event, Finished):
                assert event.id not in self.ended, "ended twice"
                self.ended[event.id] = event
                self._judge(event)

    def _judge(self, event: Finished) -> None:
        item, out = self.asked[event.id], self.written[event.id]
        assert out == continuation(item.prompt, len(out)), "other tokens than alone"
        assert event.num_output == len(out)
        if event.reason is FinishReason.STOP:
            assert out[-1] == 49 == event.stop_id
        elif event.reason is FinishReason.LENGTH:
            wanted = item.sampling.max_tokens
            assert wanted is None or len(out) == wanted
        else:
            assert event.reason in (FinishReason.ABORT, FinishReason.TIMEOUT)
        assert 49 not in out[:-1]

    def teardown(self) -> None:
        """With enough steps all end, and everything is back where it was."""
        if not hasattr(self, "scheduler"):
            return
        for _ in range(5_000):
            if not self.scheduler.has_work and not self.scheduler.num_in_flight:
                break
            self.run(1)
            self.books_balance()
        assert not self.scheduler.has_work, "no progress"
        assert set(self.ended) == set(self.asked)
        assert self.pool.num_available == self.pool.num_blocks


SchedulerMachine.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestScheduler = SchedulerMachine.TestCase


@pytest.mark.slow
def test_a_hundred_thousand_steps() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        SchedulerMachine,
        settings=settings(
            max_examples=1_000,
            stateful_step_count=100,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
