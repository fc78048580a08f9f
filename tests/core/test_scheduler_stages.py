"""With a pipeline: no plan waits for a token that another one samples, and all plans have work."""

from __future__ import annotations

import pytest

from penstock.core.blocks import BlockPool
from penstock.core.clock import ManualClock
from penstock.core.events import TokensOut
from penstock.core.limits import Limits
from penstock.core.plan import UNKNOWN
from penstock.core.policy import fcfs
from penstock.core.scheduler import Scheduler
from tests.fakes import FULL, FakeExecutor, continuation, submission

REQUESTS, NEW = 7, 12


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_decodes_are_spread_over_the_plans_in_flight(depth: int) -> None:
    limits = Limits(8, 16, 64, depth=depth, stages=2)
    scheduler = Scheduler(limits, BlockPool(200, 4, True), FULL, fcfs, ManualClock())
    executor = FakeExecutor(FULL, 4)
    prompts = [[i + 1, 5, i] * 5 for i in range(REQUESTS)]
    for i, prompt in enumerate(prompts):
        scheduler.add(submission(str(i), prompt, NEW))
    out: dict[str, list[int]] = {str(i): [] for i in range(REQUESTS)}
    rows_in_flight = []
    while scheduler.has_work:
        while scheduler.may_schedule and (plan := scheduler.schedule()).slots:
            assert UNKNOWN not in plan.tokens
            executor.submit(plan)
        in_flight = list(executor.queue)
        sampled = [
            slot
            for plan in in_flight
            for slot, samples in zip(plan.slots, plan.samples, strict=True)
            if samples
        ]
        assert len(sampled) == len(set(sampled)), "a request is to sample twice at once"
        if all(max(plan.counts) == 1 for plan in in_flight) and scheduler.num_running == REQUESTS:
            rows_in_flight.append([len(plan.slots) for plan in in_flight])
        scheduler.apply(executor.collect())
        scheduler.check()
        for event in scheduler.take_events():
            if isinstance(event, TokensOut):
                out[event.id] += event.tokens
    assert [out[str(i)] for i in range(REQUESTS)] == [continuation(p, NEW) for p in prompts]
    assert len(rows_in_flight) > NEW
    for rows in rows_in_flight:
        assert len(rows) == depth
        assert sum(rows) == REQUESTS
        assert max(rows) == -(-REQUESTS // depth)
