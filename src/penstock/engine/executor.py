"""Executors around a `run(plan) -> result` function: at once, in a thread of its own, or together
with workers that run the same plans."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread
from typing import NoReturn, Protocol

from penstock.core.plan import StepPlan, StepResult
from penstock.engine.activity import Pace
from penstock.errors import EngineError

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


LOOK_S = 0.1
"""How often a group's executor looks whether the group still holds."""
GRACE_S = 1.0
"""How long it waits for a better cause when rank 0 itself fails: it may be the last to know."""
JOIN_S = 5.0


class Group(Protocol):
    """The workers, as an executor needs them."""

    def send(self, plan: StepPlan) -> None:
        """Raises EngineError when the group is broken."""
        ...

    def check(self) -> None:
        """Raises EngineError when the group is broken."""
        ...

    def abandon(self, why: str) -> None:
        """Break the group."""
        ...

    def close(self) -> None: ...


class GroupExecutor(ThreadExecutor):
    """Rank 0's part runs in a thread here, the others in their processes. A step that fails on any
    rank leaves the ranks at odds: then `collect` raises EngineError, and the engine ends."""

    def __init__(self, run: Run, group: Group, pace: Pace | None = None) -> None:
        super().__init__(run)
        self._group = group
        self._submitted: deque[tuple[int, float]] = deque()
        """tokens and time of each plan under way"""
        self._collected_s = 0.0
        self._pace = pace or Pace()

    def submit(self, plan: StepPlan) -> None:
        self._group.send(plan)
        self._submitted.append((plan.num_tokens, time.monotonic()))
        super().submit(plan)

    def collect(self) -> StepResult:
        tokens, submitted_s = self._submitted.popleft()
        limit_s = self._pace.limit_s(tokens)
        end = time.monotonic() + limit_s
        while True:
            try:
                result = self._results.get(timeout=LOOK_S)
                break
            except Empty:
                self._group.check()
                if time.monotonic() > end:
                    self._group.abandon(f"A step of {tokens} tokens is stuck for {limit_s:.0f} s")
        if result.error is not None:
            self._fail(str(result.error["message"]))
        now = time.monotonic()
        self._pace.note(tokens, now - max(submitted_s, self._collected_s))
        self._collected_s = now
        return result

    def _fail(self, message: str) -> NoReturn:
        end = time.monotonic() + GRACE_S
        while time.monotonic() < end:
            self._group.check()
            time.sleep(LOOK_S)
        self._group.abandon(f"Rank 0 failed ({message})")
        self._group.check()
        raise EngineError(message)

    def close(self) -> None:
        self._group.close()
        self._plans.put(None)
        self._thread.join(JOIN_S)  # a broken group's step may never end; the thread is a daemon
