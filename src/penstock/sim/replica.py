"""One engine in virtual time: the production scheduler in the engine's own loop, on costs.

The loop is that of `engine.engine`: take in what came, plan as far as the depth allows, wait for
the oldest plan, apply its result. Where the scheduler would only repeat itself it is taken forward
at once, up to the step in which something comes in.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

from penstock.core.events import CacheChanged, Finished, Queued, Scheduled, TokensOut
from penstock.core.fast_forward import (
    decoding,
    fast_forward,
    next_deadline_s,
    plans_under_way,
    steady_steps,
)
from penstock.core.plan import StepPlan, StepResult
from penstock.core.request import FinishReason, Submission
from penstock.core.scheduler import Scheduler
from penstock.core.step_time import work_of
from penstock.errors import PenstockError
from penstock.report.records import RequestRecord
from penstock.report.stats import Histogram
from penstock.sim.costs import Costs, decode_run
from penstock.sim.kernel import Kernel

TOKEN = 0
"""What a simulated request writes: lengths matter, ids do not."""
FEWEST = 3
"""Steady steps that are worth going forward at once."""
MOST = 128
"""Steps that are gone forward at once: whatever comes in cuts them short, and costs the rest."""

Ended = Callable[["Replica", RequestRecord], None]
"""Told of every request that ended."""


class Replica:
    """Has no clock of its own: it lives on the kernel's."""

    def __init__(
        self,
        index: int,
        kernel: Kernel,
        scheduler: Scheduler,
        costs: Costs,
        ended: Ended,
        gaps: Histogram,
        cache_changed: Callable[[int, CacheChanged], None] | None = None,
        keep_gaps: bool = False,
        forward: bool = True,
    ) -> None:
        """cache_changed: told what the prefix cache stores and drops. keep_gaps: each record has
        all of its gaps. forward: go forward at once where nothing changes; False takes each
        step."""
        self.index = index
        self.scheduler = scheduler
        self.live: dict[str, RequestRecord] = {}
        self.tokens_ahead = 0
        """prompt tokens of requests without a first token"""
        self.busy_s = 0.0
        """time in which steps ran"""
        self.steps = 0
        self.slowness = 1.0
        """factor on every step's time"""
        self._kernel, self._costs, self._ended, self._gaps = kernel, costs, ended, gaps
        self._cache_changed, self._keep_gaps, self._forward = cache_changed, keep_gaps, forward
        self._asked: dict[str, Submission] = {}
        self._inbox: list[Submission] = []
        self._device: deque[tuple[StepPlan, float]] = deque()
        """plans under way and when each will be done"""
        self._free_s = 0.0
        """when the device has nothing more to do"""
        self._turn = 0
        """of the loop; an action that was told an earlier one is off"""
        self._idle = True
        self._ends: list[float] = []
        """of the steps that are gone forward at once; empty when there are none"""
        self._done: list[float] = []
        """the same of the plans: those under way before, then one a step"""
        self._starts_s = 0.0

    # From outside

    def submit(self, record: RequestRecord, submission: Submission) -> None:
        """A request comes in now."""
        record.replica = self.index
        if record.queued_s is None:
            record.queued_s = self._kernel.now()
        self.live[record.id] = record
        self._asked[record.id] = submission
        if record.first_s is None:
            self.tokens_ahead += record.input_tokens
        self._inbox.append(submission)
        if self._idle:
            self._idle = False
            self._kernel.at(self._kernel.now(), self._wake, self._next_turn())
        elif self._ends:
            self._cut_short(self._kernel.now())

    def slow_down(self, factor: float) -> None:
        """From the next step on."""
        if self._ends:
            self._cut_short(self._kernel.now())
        self.slowness = factor

    def freeze(self) -> None:
        """Nobody hears of it any more, nor it of anybody."""
        if done := bisect_left(self._ends, self._kernel.now()):
            self._note_gaps([self.live[r.id] for r in decoding(self.scheduler)], self._ends[:done])
        self._ends = []
        self._idle = False  # nothing wakes it any more
        self._next_turn()

    def stop(self) -> list[tuple[RequestRecord, Submission]]:
        """It is gone: the requests that it had, in order of arrival, as they are to go on."""
        self.freeze()
        lost = []
        for record in self.live.values():
            output = [TOKEN] * record.output_tokens
            lost.append((record, replace(self._asked[record.id], output=output)))
        self.live.clear()
        return lost

    # The loop

    def _next_turn(self) -> int:
        self._turn += 1
        return self._turn

    def _wake(self, turn: int) -> None:
        if turn != self._turn:
            return
        inbox, self._inbox = self._inbox, []
        for submission in inbox:
            self._add(submission)
        if not self.scheduler.has_work:
            self._rest()
            return
        if self._forward and self._go_forward():
            return
        now = self._kernel.now()
        while self.scheduler.may_schedule and (plan := self.scheduler.schedule()).slots:
            seconds = self._costs.seconds(work_of(plan)) * self.slowness
            self._free_s = max(now, self._free_s) + seconds
            self.busy_s += seconds
            self._device.append((plan, self._free_s))
        if not self._device:
            self._rest()
            return
        self._kernel.at(max(now, self._device[0][1]), self._collect, self._next_turn())

    def _rest(self) -> None:
        """Nothing to run: the deadlines of all requests may have passed."""
        self._take_events()
        if self.scheduler.has_work:
            raise PenstockError("The scheduler has work and plans nothing.")
        self._idle = True

    def _collect(self, turn: int) -> None:
        if turn != self._turn:
            return
        plan, _ = self._device.popleft()
        self.steps += 1
        outputs = [[TOKEN] for wanted in plan.samples if wanted]
        self.scheduler.apply(StepResult(plan.step, outputs))
        self._take_events()
        self._wake(self._next_turn())

    def _add(self, submission: Submission) -> None:
        try:
            self.scheduler.add(submission)
        except PenstockError as error:
            record = self.live[submission.id]
            self.tokens_ahead -= record.input_tokens
            self._end(record, error.code)

    # Going forward at once

    def _go_forward(self) -> bool:
        scheduler, now = self.scheduler, self._kernel.now()
        steps = min(steady_steps(scheduler), MOST)
        if steps < FEWEST:
            return False
        rows = decoding(scheduler)
        context = sum(r.computed for r in rows) + len(rows)
        costs = decode_run(self._costs, len(rows), context, steps)
        at = max(now, self._free_s)
        done = [end for _, end in self._device]
        for seconds in costs:
            at += seconds * self.slowness
            done.append(at)
        ends = [max(now, end) for end in done[:steps]]
        deadline = next_deadline_s(scheduler)
        if deadline <= ends[-1]:
            # The pair after the last end before it would find the deadline passed.
            del ends[max(0, bisect_left(ends, deadline)) :]
            if len(ends) < FEWEST:
                return False
        self._ends, self._done, self._starts_s = ends, done, now
        self._kernel.at(ends[-1], self._arrive, self._next_turn())
        return True

    def _cut_short(self, now: float) -> None:
        """The step under way is the last one that is gone at once."""
        steps = max(bisect_left(self._ends, now) + 1, len(self._device))
        if steps < len(self._ends):
            del self._ends[steps:]
            self._kernel.at(self._ends[-1], self._arrive, self._next_turn())

    def _arrive(self, turn: int) -> None:
        if turn != self._turn:
            return
        ends, self._ends = self._ends, []
        rows, under_way = decoding(self.scheduler), len(self._device)
        before = [self.live[r.id] for r in rows]
        fast_forward(self.scheduler, [[TOKEN] * len(ends)] * len(rows))
        self.steps += len(ends)
        done = self._done[: len(ends) + under_way]
        self.busy_s += done[-1] - max(self._starts_s, self._free_s)
        self._free_s = done[-1]
        plans = plans_under_way(self.scheduler)
        self._device = deque(zip(plans, done[len(ends) :], strict=True))
        self._note_gaps(before, ends)
        self._take_events()
        self._wake(self._next_turn())

    def _note_gaps(self, records: list[RequestRecord], ends: list[float]) -> None:
        inner = [b - a for a, b in pairwise(ends)]
        longest = max(inner, default=0.0)
        count = len(records)
        if inner:
            # They differ by next to nothing: one place in the histogram stands for all.
            self._gaps.add(sum(inner) / len(inner), count * len(inner))
        for record in records:
            self._token(record, ends[0])
            record.last_s = ends[-1]
            record.output_tokens += len(inner)
            if longest > (record.longest_stall_s or 0.0):
                record.longest_stall_s = longest
            if self._keep_gaps:
                record.gaps_s += inner

    # What happened

    def _take_events(self) -> None:
        for event in self.scheduler.take_events():
            kind = type(event)
            if kind is TokensOut:
                self._token(self.live[event.id], event.at)  # type: ignore[union-attr]
            elif isinstance(event, Scheduled):
                record = self.live[event.id]
                if record.scheduled_s is None:
                    record.scheduled_s = event.at
                    record.cached_tokens = event.cached_tokens
            elif isinstance(event, Queued):
                self.live[event.id].predicted_ttft_s = event.predicted_ttft_s
            elif isinstance(event, Finished):
                record = self.live[event.id]
                if record.first_s is None:
                    self.tokens_ahead -= record.input_tokens
                good = event.reason in (FinishReason.LENGTH, FinishReason.STOP)
                self._end(record, "" if good else str(event.reason))
            elif isinstance(event, CacheChanged) and self._cache_changed is not None:
                self._cache_changed(self.index, event)

    def _token(self, record: RequestRecord, at: float) -> None:
        record.output_tokens += 1
        last, record.last_s = record.last_s, at
        if last is None:
            record.first_s = at
            self.tokens_ahead -= record.input_tokens
            return
        gap = at - last
        self._gaps.add(gap)
        if gap > (record.longest_stall_s or 0.0):
            record.longest_stall_s = gap
        if self._keep_gaps:
            record.gaps_s.append(gap)

    def _end(self, record: RequestRecord, error: str) -> None:
        del self.live[record.id], self._asked[record.id]
        record.end_s, record.error = self._kernel.now(), error
        self._ended(self, record)
