"""A real engine under timed requests, in this process: what it did, and what its steps cost."""

from __future__ import annotations

import heapq
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from penstock.bench.load import prompt_ids
from penstock.config import Config, EngineConfig, ModelConfig
from penstock.core.events import Event, Finished, Queued, Scheduled, TokensOut
from penstock.core.plan import StepPlan
from penstock.core.request import FinishReason, Sampling, Submission
from penstock.core.step_time import Work, work_of
from penstock.engine.client import EngineStats
from penstock.engine.clock import MonotonicClock
from penstock.engine.engine import Message
from penstock.report.records import RequestRecord
from penstock.workload.sessions import TimedRequest


class TimedEngine:
    """Takes requests when they are due, turns of sessions their wait after the answer before."""

    def __init__(self, model: Path, max_model_len: int | None = None, **engine: Any) -> None:
        """engine: fields of EngineConfig."""
        from penstock.engine.build import build_engine  # torch is imported here

        self.config = replace(EngineConfig(), **engine)
        config = Config(ModelConfig(str(model), max_model_len=max_model_len), self.config).check()
        self.clock = MonotonicClock()
        self.engine, self.info = build_engine(config, self.clock, self._hear)
        self.steps: list[tuple[Work, float]] = []
        """of all runs: what each step computed and how long it took"""
        self._plans: dict[int, tuple[Work, float]] = {}
        self._last = 0.0
        self._runs = 0
        schedule = self.engine.scheduler.schedule

        def noted() -> StepPlan:
            plan = schedule()
            if plan.slots:
                self._plans[plan.step] = work_of(plan), self.clock.now()
            return plan

        self.engine.scheduler.schedule = noted  # type: ignore[method-assign]

    def run(self, requests: Sequence[TimedRequest]) -> list[RequestRecord]:
        """All of them to their ends; nothing is shared with runs before."""
        self._runs += 1
        self._records: dict[str, RequestRecord] = {}
        self._times: dict[str, list[float]] = {}
        self._answers: dict[int, list[int]] = {}
        self._asked = {str(r.id): r for r in requests}
        self._queue = [(r.at_s, r.id, r) for r in requests if not r.parents]
        heapq.heapify(self._queue)
        self._later = [r for r in requests if r.parents]
        self._began = self.clock.now() + 0.05
        while self._queue or self._later or self.engine.scheduler.has_work:
            for message in self._due():
                self.engine._take_in([message])
            if self.engine.scheduler.has_work:
                self.engine.step()
            elif self._queue:
                time.sleep(max(0.0, self._began + self._queue[0][0] - self.clock.now()))
        self.engine._rest()
        return list(self._records.values())

    def _due(self) -> list[Message]:
        found: list[Submission] = []
        now = self.clock.now() - self._began
        while self._queue and self._queue[0][0] <= now:
            due, _, request = heapq.heappop(self._queue)
            name = f"{self._runs}/{request.id}"
            self._records[name] = RequestRecord(
                str(request.id), due, request.input_tokens, wanted_tokens=request.output_tokens,
                session=request.session, turn=request.turn, slo_class=request.slo_class, sent_s=due,
            )  # fmt: skip
            self._times[name] = []
            ids = prompt_ids(request.prompt, self._answers, self.info.vocab_size)
            sampling = Sampling(temperature=0.0, max_tokens=request.output_tokens)
            found.append(
                Submission(
                    name, ids, sampling, arrival_s=self._began + due, slo_class=request.slo_class,
                    cache_salt=str(self._runs),
                )
            )  # fmt: skip
        return [found] if found else []

    def _hear(self, events: list[Event], stats: EngineStats) -> None:
        if stats.step in self._plans:
            work, planned = self._plans.pop(stats.step)
            self.steps.append((work, stats.at - max(planned, self._last)))
            self._last = stats.at
        for event in events:
            record = self._records.get(getattr(event, "id", ""))
            if record is None:
                continue
            at = getattr(event, "at", 0.0) - self._began
            if isinstance(event, Queued):
                record.queued_s, record.predicted_ttft_s = at, event.predicted_ttft_s
            elif isinstance(event, Scheduled) and record.scheduled_s is None:
                record.scheduled_s, record.cached_tokens = at, event.cached_tokens
            elif isinstance(event, TokensOut):
                self._times[event.id].append(at)
                answer = self._asked[record.id].answer
                self._answers.setdefault(answer, []).extend(event.tokens)
            elif isinstance(event, Finished):
                self._end(record, event, at)

    def _end(self, record: RequestRecord, event: Finished, at: float) -> None:
        times = self._times.pop(event.id)
        record.output_tokens, record.end_s = len(times), at
        record.first_s, record.last_s = (times[0], times[-1]) if times else (None, None)
        record.gaps_s = [b - a for a, b in pairwise(times)]
        record.longest_stall_s = max(record.gaps_s, default=None)
        if event.reason is not FinishReason.LENGTH:
            record.error = str((event.error or {}).get("code", event.reason))
        ended = {r.id: r.end_s for r in self._records.values() if r.end_s is not None}
        for request in [r for r in self._later if all(str(p) in ended for p in r.parents)]:
            due = max(ended[str(parent)] for parent in request.parents) + request.wait_s
            self._later.remove(request)
            heapq.heappush(self._queue, (due, request.id, request))

    def close(self) -> None:
        """End the executor's thread."""
        self.engine.close()
