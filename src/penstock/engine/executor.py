"""Executors around a `run(plan) -> result` function: at once, or in a thread of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread

from penstock.core.plan import StepPlan, StepResult

Run = Callable[[StepPlan], StepResult]


class InlineExecutor:
    """Runs a plan when its result is asked for (depth 1)."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._plans: deque[StepPlan] = deque()

    def submit(self, plan: StepPlan) -> None:
        self._plans.append(plan)

    def collect(self) -> StepResult:
        return self._run(self._plans.popleft())

    def close(self) -> None:
        self._plans.clear()


class ThreadExecutor:
    """Runs plans in order in a thread, while the caller prepares the next one (depth 2)."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._plans: SimpleQueue[StepPlan | None] = SimpleQueue()
        self._results: SimpleQueue[StepResult] = SimpleQueue()
        self._thread = Thread(target=self._work, name="penstock-runner", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (plan := self._plans.get()) is not None:
            self._results.put(self._run(plan))

    def submit(self, plan: StepPlan) -> None:
        self._plans.put(plan)

    def collect(self) -> StepResult:
        return self._results.get()

    def close(self) -> None:
        self._plans.put(None)
        self._thread.join()
