from __future__ import annotations

from threading import Event, get_ident

import pytest

from penstock.core.plan import StepPlan, StepResult
from penstock.engine.activity import Pace
from penstock.engine.executor import GroupExecutor, InlineExecutor, ThreadExecutor
from penstock.errors import EngineError


def test_inline_runs_when_the_result_is_asked_for() -> None:
    ran: list[int] = []

    def run(plan: StepPlan) -> StepResult:
        ran.append(plan.step)
        return StepResult(plan.step, [])

    executor = InlineExecutor(run)
    executor.submit(StepPlan(1))
    executor.submit(StepPlan(2))
    assert ran == []
    assert executor.collect().step == 1
    assert ran == [1]
    executor.close()


def test_thread_runs_in_order_beside_the_caller() -> None:
    where: list[int] = []

    def run(plan: StepPlan) -> StepResult:
        where.append(get_ident())
        return StepResult(plan.step, [])

    executor = ThreadExecutor(run)
    for step in range(5):
        executor.submit(StepPlan(step))
    assert [executor.collect().step for _ in range(5)] == list(range(5))
    assert get_ident() not in where
    executor.close()


class Alone:
    """A group without workers: notes what it is sent, breaks when it is told to."""

    def __init__(self) -> None:
        self.sent: list[StepPlan] = []
        self.why = ""

    def send(self, plan: StepPlan) -> None:
        self.sent.append(plan)

    def check(self) -> None:
        if self.why:
            raise EngineError(self.why)

    def abandon(self, why: str) -> None:
        self.why = why

    def close(self) -> None:
        self.sent.clear()


def plan(step: int, tokens: int) -> StepPlan:
    return StepPlan(step, slots=[0], starts=[0], counts=[tokens])


def test_a_group_is_sent_every_plan() -> None:
    group = Alone()
    executor = GroupExecutor(lambda plan: StepResult(plan.step, []), group)
    for step in range(3):
        executor.submit(plan(step, 1))
    assert [sent.step for sent in group.sent] == [0, 1, 2]
    assert [executor.collect().step for _ in range(3)] == [0, 1, 2]
    executor.close()
    assert not group.sent


class Hasty(Pace):
    def limit_s(self, num_tokens: int) -> float:
        return 0.2


def test_a_step_that_takes_far_too_long_breaks_the_group() -> None:
    """A worker may hang with its heart beating: then rank 0 waits for it in a collective."""
    over = Event()

    def run(plan: StepPlan) -> StepResult:
        if plan.step:
            over.wait(10)
        return StepResult(plan.step, [])

    executor = GroupExecutor(run, Alone(), Hasty())
    executor.submit(plan(0, 1))
    assert executor.collect().step == 0
    executor.submit(plan(1, 2))
    with pytest.raises(EngineError, match="A step of 2 tokens is stuck"):
        executor.collect()
    over.set()
    executor.close()


def test_a_step_that_fails_here_leaves_the_ranks_at_odds() -> None:
    def run(plan: StepPlan) -> StepResult:
        return StepResult(plan.step, [], error=EngineError("no memory").to_dict())

    executor = GroupExecutor(run, Alone())
    executor.submit(plan(0, 1))
    with pytest.raises(EngineError, match=r"Rank 0 failed \(no memory\)"):
        executor.collect()
    executor.close()
