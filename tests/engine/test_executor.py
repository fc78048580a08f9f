from __future__ import annotations

from threading import get_ident

from penstock.core.plan import StepPlan, StepResult
from penstock.engine.executor import InlineExecutor, ThreadExecutor


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
