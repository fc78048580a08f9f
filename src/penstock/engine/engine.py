"""The engine: schedule, run, apply, publish.

It knows token ids and plain data only. Messages come through an inbox, what happened leaves
through `publish(events, stats)`; whoever connects the two decides whether that is a queue in this
process or a socket to another.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from penstock.core.clock import Clock
from penstock.core.events import Event, Finished
from penstock.core.plan import StepPlan, StepResult
from penstock.core.request import FinishReason, HoldReason, Submission
from penstock.core.scheduler import Scheduler
from penstock.engine.activity import Activity, Pace
from penstock.engine.client import EngineStats
from penstock.errors import PenstockError

if TYPE_CHECKING:  # it reaches torch, which the API process has no need of
    from penstock.engine.judge import Judge

IDLE_S = 1.0
"""How often an idle engine says that it is alive."""
HELD_S = 0.002
"""How often it looks whether what all requests wait for is there."""

Publish = Callable[[list[Event], EngineStats], None]
Message = list[Submission] | tuple[list[str], FinishReason] | None
"""submissions; (ids to abort, reason); None = stop"""


class Inbox(Protocol):
    def get(self, timeout_s: float) -> list[Message]:
        """All messages at hand, waiting at most timeout_s for the first (0: do not wait)."""
        ...


class ClosableExecutor(Protocol):
    def submit(self, plan: StepPlan) -> None: ...
    def collect(self) -> StepResult: ...
    def close(self) -> None: ...


class Compiler(Protocol):
    """Compiles the grammars of requests: `grammars.Grammars`."""

    def admit(self, submission: Submission) -> bool: ...
    def settled(self) -> list[tuple[str, PenstockError | None]]: ...
    def close(self) -> None: ...


class Engine:
    def __init__(
        self,
        scheduler: Scheduler,
        executor: ClosableExecutor,
        clock: Clock,
        publish: Publish,
        activity: Activity | None = None,
        prepare: Callable[[Submission], None] | None = None,
        grammars: Compiler | None = None,
        judge: Judge | None = None,
    ) -> None:
        """activity: told what the engine does. prepare: gets ready what a request needs, before it
        is added; what it raises ends that request. grammars: compiles those of requests. judge:
        holds each step against the hardware."""
        self._prepare = prepare
        self.scheduler = scheduler
        self._executor = executor
        self._clock = clock
        self._publish = publish
        self._grammars = grammars
        self._refused: list[Event] = []
        self._leaked = 0
        self._activity = activity or Activity()
        self._judge = judge
        self._pace = Pace()
        self._under_way: deque[StepPlan] = deque()
        self._stats = EngineStats(at=clock.now())
        self._ended_s = 0.0
        """when the last step ended; 0 after a rest"""

    def run(self, inbox: Inbox) -> None:
        """Serve until told to stop."""
        try:
            while self._take_in(inbox.get(self._patience_s())):
                self._release()
                if self.scheduler.has_work:
                    self.step()
                else:
                    self._rest()
                    self._activity.begin("idle")
        finally:
            self.close()

    def _patience_s(self) -> float:
        """How long to wait for messages."""
        scheduler = self.scheduler
        if scheduler.num_running or scheduler.num_waiting or scheduler.num_in_flight:
            return 0.0
        return HELD_S if scheduler.num_held else IDLE_S

    def close(self) -> None:
        """Stop whatever the executor runs in."""
        self._executor.close()
        if self._grammars is not None:
            self._grammars.close()

    def step(self) -> None:
        """One turn of the loop. With depth 2 the next plan is on its way before this one's
        result is waited for."""
        began = time.perf_counter()
        self._ended_s = self._ended_s or began
        while self.scheduler.may_schedule and (plan := self.scheduler.schedule()).slots:
            self._executor.submit(plan)
            self._under_way.append(plan)
        scheduled = time.perf_counter()
        if self.scheduler.num_in_flight:
            plan = self._under_way[0]
            self._activity.begin("running step", plan.step, self._pace.limit_s(plan.num_tokens))
            result = self._executor.collect()
            collected = time.perf_counter()
            self.scheduler.apply(result)
            self._measure(result, scheduled - began + time.perf_counter() - collected)
            self._pace.note(plan.num_tokens, max(collected - scheduled, result.device_s))
            self._count(self._under_way.popleft(), time.perf_counter() - began)
        else:
            self._activity.begin("waiting for blocks")
        ended = time.perf_counter()
        self._stats.step_s = ended - began
        self._ended_s = ended
        self._tell()
        self._stats.publish_s = time.perf_counter() - ended

    def _measure(self, result: StepResult, schedule_s: float) -> None:
        """What the step spent where. Steps under way overlap: the time of one is that since the
        one before it ended."""
        stats = self._stats
        stats.device_s, stats.schedule_s = result.device_s, schedule_s
        stats.prepare_s, stats.forward_s = result.prepare_s, result.forward_s
        stats.sample_s = result.sample_s
        took_s = time.perf_counter() - self._ended_s
        kernel_s = result.kernel_s
        stats.host_share = None if kernel_s is None else max(0.0, 1 - kernel_s / took_s)

    def _count(self, plan: StepPlan, step_s: float) -> None:
        """The step whose result is there now."""
        stats = self._stats
        stats.step_s = step_s
        if self._judge is not None:
            self._judge.note(plan, stats)
        stats.step = plan.step
        stats.decode_tokens = sum(1 for count in plan.counts if count == 1)
        stats.prefill_tokens = plan.num_tokens - stats.decode_tokens
        stats.prefill_rows = len(plan.counts) - stats.decode_tokens

    def _rest(self) -> None:
        """Idle: drop what is still on its way, and see that the books balance."""
        while self.scheduler.num_in_flight:
            self.scheduler.apply(self._executor.collect())
            self._under_way.clear()
        pool = self.scheduler.pool
        self._leaked = pool.num_blocks - pool.num_available
        self._stats = EngineStats(at=0.0, step=self._stats.step)
        self._ended_s = 0.0
        self._tell()

    def _take_in(self, messages: list[Message]) -> bool:
        for message in messages:
            if message is None:
                return False
            if isinstance(message, list):
                for submission in message:
                    self._add(submission)
            else:
                ids, reason = message
                for request_id in ids:
                    self.scheduler.abort(request_id, reason)
        return True

    def _release(self) -> None:
        """Requests whose grammars are there, or cannot be had, need not be held any longer."""
        if self._grammars is not None:
            for request_id, error in self._grammars.settled():
                self.scheduler.release(request_id, error)

    def _add(self, submission: Submission) -> None:
        try:
            if self._prepare is not None:
                self._prepare(submission)
            ready = self._grammars is None or self._grammars.admit(submission)
            self.scheduler.add(submission, None if ready else HoldReason.GRAMMAR)
        except PenstockError as error:
            refusal = Finished(
                submission.id,
                self._clock.now(),
                FinishReason.ERROR,
                num_prompt=len(submission.prompt),
                num_output=0,
                cached_tokens=0,
                preemptions=0,
                error=error.to_dict(),
            )
            self._refused.append(refusal)

    def _tell(self) -> None:
        scheduler, stats = self.scheduler, self._stats
        stats.at = self._clock.now()
        stats.running = scheduler.num_running
        stats.waiting = scheduler.num_waiting
        stats.held = scheduler.num_held
        stats.blocks_total = scheduler.pool.num_blocks
        stats.blocks_free = scheduler.pool.num_free
        stats.blocks_cached = scheduler.pool.num_idle
        stats.prefix_queries = scheduler.counters.prefix_queries
        stats.prefix_hits = scheduler.counters.prefix_hits
        stats.preemptions = scheduler.counters.preemptions
        stats.leaked_blocks = self._leaked
        events, self._refused = self._refused + scheduler.take_events(), []
        self._publish(events, replace(stats))
