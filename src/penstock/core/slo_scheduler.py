"""The scheduler that aims at promises (policy `slo`).

- The queue is ordered by slack (`core.slo`), with the time that a request needs taken from a model
  of step times that is fitted as steps are seen.
- A request that is predicted to miss its first token's promise is refused at once.
- Prompts are read in chunks that keep the tightest promise between tokens of those that decode.
- Batch work takes what is left: it reads after the others, is left out of a step that would be too
  long for them, and gives up slots and blocks in the step in which they are needed. Once its own
  deadline has passed it is treated like the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from penstock.config.engine import EngineConfig
from penstock.core.blocks import BlockPool
from penstock.core.clock import Clock
from penstock.core.events import Queued, WaitReason
from penstock.core.fair import FairShares
from penstock.core.limits import Limits
from penstock.core.plan import KVGroup, StepPlan, StepResult
from penstock.core.policy import background_last, make_policy
from penstock.core.request import Request, Submission
from penstock.core.scheduler import Scheduler
from penstock.core.slo import CLASSES, Promises
from penstock.core.step_time import StepTimes, Work, work_of
from penstock.errors import InvalidFieldError, SloMissError

LEAST_CHUNK = 16
"""Prompt tokens that a step reads at least of those that may not wait: a promise that cannot be
kept must not stop reading."""
HORIZON = 128
"""Steps ahead for which it is said whether somebody will be left out."""
SAFETY = 0.9
"""Part of a promise that is planned with."""


class SloScheduler(Scheduler):
    def __init__(
        self,
        limits: Limits,
        pool: BlockPool,
        groups: tuple[KVGroup, ...],
        clock: Clock,
        cache_key: str = "",
        promises: Promises | None = None,
        fair: FairShares | None = None,
    ) -> None:
        super().__init__(limits, pool, groups, background_last(self._key), clock, cache_key, fair)
        self.promises = promises or Promises()
        self.step_times = StepTimes()
        self._planned: dict[int, float] = {}
        """when each plan under way was made, by its step"""
        self._last_result = -math.inf

    # Order and admission

    def _key(self, submission: Submission, serial: int) -> tuple[float, ...]:
        arrived = submission.arrival_s or self._clock.now()
        promise = self.promises.of(submission.slo_class)
        return (arrived + promise.ttft_s - self._reading_s(len(submission.prompt)), serial)

    def _reading_s(self, tokens: int) -> float:
        """Time that reading a prompt takes beside those that decode; 0 while nothing is known."""
        if not tokens:
            return 0.0
        rows = len(self._decoding)
        alone = self.step_times.seconds(self._decode_work(self._decoding))
        if alone is None:
            return 0.0
        most = self.limits.max_num_batched_tokens - rows
        chunk = max(1, min(LEAST_CHUNK, most), self._chunk(self._decoding, most))
        size = min(chunk, tokens)
        work = self._decode_work(self._decoding)._replace(
            prefill=size, attended=size * (tokens + size) // 2
        )
        step = self.step_times.seconds(work)
        assert step is not None
        return step * tokens / size

    def add(self, submission: Submission) -> None:
        """As `Scheduler.add`. Raises SloMissError for a request that is predicted to miss the
        promise of its class."""
        name = submission.slo_class
        if name and name not in CLASSES:
            cause = f"slo_class is {name!r}: no class is called so."
            cure = "Use interactive, agent or batch."
            raise InvalidFieldError(cause, cure=cure, param="slo_class")
        if self._batch(submission):
            super().add(submission)
            return
        predicted = self.predict_ttft_s(submission)
        promise = self.promises.of(name)
        if predicted > promise.ttft_s and not submission.output:
            raise SloMissError(
                f"The first token would take about {predicted:.2f} s; {name or 'this class'} is "
                f"promised {promise.ttft_s:g} s.",
                cure="Try again later, or send the request as a class that may wait.",
                retry_after_s=predicted - promise.ttft_s,
            )
        super().add(submission)
        queued = self._events[-1]
        if isinstance(queued, Queued) and self.step_times.fitted is not None:
            queued.predicted_ttft_s = predicted

    def predict_ttft_s(self, submission: Submission) -> float:
        """Seconds from its arrival to its first token, by all that may not wait either and is
        queued before it."""
        now = self._clock.now()
        order = self._policy(submission, self._serial)
        running = [r for r in self._running() if not self._yields(r)]
        waiting = [r for r in self._waiting if r.order < order]
        ahead = sum(len(r.tokens) - r.computed for r in self._prefilling if not self._yields(r))
        ahead += sum(len(r.tokens) - self._tables.match(r) * self.pool.block_size for r in waiting)
        under_way = self._in_flight[0][0] if self._in_flight else StepPlan(0)
        current = self.step_times.seconds(work_of(under_way)) if under_way.slots else 0.0
        late = max(0, len(running) + len(waiting) + 1 - self.limits.max_num_seqs)
        arrived = submission.arrival_s or now
        reading = self._reading_s(ahead + len(submission.prompt))
        return now - arrived + (current or 0.0) + reading + self._until_slots(late)

    def _until_slots(self, count: int) -> float:
        """Time until so many of those that run have ended, if they write all that they may."""
        if not count:
            return 0.0
        step = self.step_times.seconds(self._decode_work(self._decoding)) or 0.0
        left = sorted(r.limit - len(r.tokens) for r in self._running())
        return step * left[min(count, len(left)) - 1] if left else 0.0

    def _batch(self, submission: Submission) -> bool:
        return submission.background or self.promises.is_batch(submission.slo_class)

    def _running(self) -> Iterator[Request]:
        yield from self._decoding
        yield from self._prefilling

    def _yields(self, request: Request) -> bool:
        """Whether it is batch work whose own deadline has not passed."""
        return self._batch(request.submission) and request.order[1] > self._clock.now()

    # A step

    def schedule(self) -> StepPlan:
        now = self._clock.now()
        self._expire(now)
        self._step_aside()
        plan = StepPlan(self._step)
        members: list[Request] = []
        preempted = self.counters.preemptions
        self._schedule_decodes(plan, members)
        most = self.limits.max_num_batched_tokens - len(members)
        kind = self._chunk(members, most)
        budget = max(kind, min(LEAST_CHUNK, most))
        decodes = len(members)
        reading = list(self._prefilling)
        patient = [r for r in reading if self._yields(r)]
        for request in reading:
            if budget > 0 and request.slot >= 0 and request not in patient:
                budget -= self._schedule_chunk(request, budget, plan, members)
        wait = None if self.counters.preemptions == preempted else WaitReason.PREEMPTION
        if wait is None and self._goes_first(patient):
            head = self._waiting.first()
            # Only who may not wait may make a step longer than was promised.
            fair = kind if head is not None and self._yields(head) else budget
            wait = self._admit(max(0, min(fair, budget)), plan, members, now)
        self._events += self._waiting.stands(wait, self._prefilling[:1] + self._decoding[:1], now)
        budget = kind - sum(plan.counts[decodes:])
        for request in patient:
            if budget > 0 and request.slot >= 0:
                budget -= self._schedule_chunk(request, budget, plan, members)
        if members:
            self._in_flight.append((plan, members))
            self._planned[plan.step] = now
            self._step += 1
        return plan

    def _goes_first(self, patient: list[Request]) -> bool:
        """Whether the first that waits enters before batch work reads on."""
        head = self._waiting.first()
        return head is not None and (not patient or not self._yields(head))

    def _step_aside(self) -> None:
        """Batch work gives its slot and blocks, the last in order first, to the first that waits
        and may not wait; background work as in `Scheduler`."""
        super()._step_aside()
        head = self._waiting.first()
        if head is None or self._batch(head.submission) or head.in_flight:
            return
        patient = sorted((r for r in self._running() if self._yields(r)), key=lambda r: r.order)
        while patient and not (self._free_slots and self._room_for(head, self._tables.match(head))):
            self._preempt(patient.pop(), head)

    def _next_decodes(self) -> list[Request]:
        """All, or without batch work where it would break a promise between tokens."""
        rows = super()._next_decodes()
        patient = [r for r in rows if self._yields(r)]
        if not patient or len(patient) == len(rows):
            return rows
        limit = self._tightest(rows)
        while patient:
            predicted = self.step_times.seconds(self._decode_work(rows))
            if predicted is None or predicted <= limit:
                break
            rows.remove(patient.pop())
        return rows

    def _tightest(self, rows: list[Request]) -> float:
        promises = (self.promises.of(r.submission.slo_class).itl_s for r in rows)
        return SAFETY * min(promises, default=math.inf)

    @staticmethod
    def _decode_work(rows: list[Request]) -> Work:
        return Work(len(rows), sum(r.computed for r in rows) + len(rows))

    def _chunk(self, rows: list[Request], most: int) -> int:
        """Prompt tokens beside these rows that keep their tightest promise between tokens; they
        may be none."""
        model = self.step_times.fitted
        if not rows or model is None:
            mixed = self.limits.max_mixed_prefill_tokens
            return min(most, mixed) if rows and mixed is not None else most
        limit = self._tightest(rows)
        base = model.seconds(self._decode_work(rows)._replace(prefill=1))
        longest = max((len(r.tokens) for r in self._prefilling), default=0)
        one = self._decode_work(rows)._replace(prefill=2, attended=longest)
        each = max(1e-9, model.seconds(one) - base)
        return max(0, min(most, int(min((limit - base) / each, most))))

    @property
    def decodes_all(self) -> bool:
        """Whether the next `HORIZON` steps go on with every request that decodes."""
        rows = self._decoding
        patient = sum(1 for r in rows if self._yields(r))
        if not patient:
            return True
        head = self._waiting.first()
        if head is not None and not self._batch(head.submission):
            return False
        if patient == len(rows):
            return True
        work = self._decode_work(rows)
        later = work._replace(context=work.context + HORIZON * len(rows))
        predicted = self.step_times.seconds(later)
        return predicted is None or predicted <= self._tightest(rows)

    def apply(self, result: StepResult) -> None:
        now = self._clock.now()
        planned = self._planned.pop(result.step, None)
        if planned is not None and result.error is None:
            seconds = result.device_s or now - max(planned, self._last_result)
            self.step_times.note(work_of(self._in_flight[0][0]), seconds)
        self._last_result = now
        super().apply(result)


def make_scheduler(
    engine: EngineConfig,
    limits: Limits,
    pool: BlockPool,
    groups: tuple[KVGroup, ...],
    clock: Clock,
    cache_key: str = "",
) -> Scheduler:
    """The scheduler of the configured policy. Raises ConfigError for an unknown one."""
    fair = FairShares(engine.cached_token_cost)
    if engine.scheduling_policy == "slo":
        promises = Promises.of_config(engine)
        return SloScheduler(limits, pool, groups, clock, cache_key, promises, fair)
    policy = make_policy(engine.scheduling_policy, engine.priority_ageing_s)
    return Scheduler(limits, pool, groups, policy, clock, cache_key, fair)
