"""The simulated engine beside the real one: the same plans in the same order, at the same times."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from penstock.core.clock import ManualClock
from penstock.core.events import Event, Finished
from penstock.core.plan import StepPlan, StepResult
from penstock.core.request import Sampling, Submission
from penstock.core.step_time import work_of
from penstock.engine.engine import Engine, Message
from penstock.sim.fleet import Fleet, FleetSpec
from penstock.sim.names import block_names
from penstock.workload.prefixes import Segment
from penstock.workload.sessions import TimedRequest
from tests.sim.parts import COSTS, engine, mixed, request


class CostlyExecutor:
    """Runs nothing; a plan's result is there when its cost has passed on the manual clock."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.plans: list[StepPlan] = []
        self._queue: deque[tuple[StepPlan, float]] = deque()
        self._free = 0.0

    def submit(self, plan: StepPlan) -> None:
        self.plans.append(plan)
        self._free = max(self._free, self.clock.now()) + COSTS.seconds(work_of(plan))
        self._queue.append((plan, self._free))

    def collect(self) -> StepResult:
        plan, end = self._queue.popleft()
        self.clock.advance(max(0.0, end - self.clock.now()))
        return StepResult(plan.step, [[0] for wanted in plan.samples if wanted])

    def close(self) -> None:
        self._queue.clear()


class Arrivals:
    """An inbox that hands over what has arrived by the manual clock, and waits by moving it."""

    def __init__(self, clock: ManualClock, requests: list[TimedRequest]) -> None:
        self.clock, self.queue = clock, deque(requests)

    def get(self, timeout_s: float) -> list[Message]:
        if timeout_s and self.queue:
            self.clock.advance(max(0.0, self.queue[0].at_s - self.clock.now()))
        came: list[Message] = []
        while self.queue and self.queue[0].at_s <= self.clock.now():
            came.append([submission(self.queue.popleft())])
        if timeout_s and not came:
            return [None]
        return came


def submission(item: TimedRequest) -> Submission:
    text = (*item.prompt, Segment(item.answer, item.output_tokens))
    return Submission(
        str(item.id), [0] * item.input_tokens,
        Sampling(temperature=0.0, max_tokens=item.output_tokens), arrival_s=item.at_s,
        session=str(item.session), slo_class=item.slo_class, block_hashes=block_names(text, 16),
    )  # fmt: skip


def real(requests: list[TimedRequest], depth: int, **spec: Any) -> tuple[list[StepPlan], dict]:
    clock = ManualClock()
    executor = CostlyExecutor(clock)
    ends: dict[str, float] = {}

    def publish(events: list[Event], _: object) -> None:
        ends.update({e.id: e.at for e in events if isinstance(e, Finished)})

    made = Engine(engine(depth, **spec).scheduler(clock), executor, clock, publish)
    made.run(Arrivals(clock, requests))
    return executor.plans, ends


def simulated(
    requests: list[TimedRequest], depth: int, forward: bool, **spec: Any
) -> tuple[list[StepPlan], Fleet]:
    plans: list[StepPlan] = []
    made = engine(depth, **spec)

    class Spy:
        limits, costs, block_size = made.limits, made.costs, made.block_size
        prefix_caching = True

        @staticmethod
        def scheduler(clock: Any, watched: bool = False) -> Any:
            scheduler = made.scheduler(clock, watched)
            schedule = scheduler.schedule

            def spied() -> StepPlan:
                plan = schedule()
                if plan.slots:
                    plans.append(plan)
                return plan

            scheduler.schedule = spied  # type: ignore[method-assign]
            return scheduler

    fleet = Fleet(FleetSpec(Spy(), forward=forward, keep_gaps=True), requests)  # type: ignore[arg-type]
    fleet.run()
    return plans, fleet


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("rate", [3.0, 40.0])
def test_the_same_plans_in_the_same_order(depth: int, rate: float) -> None:
    requests = mixed(60, rate)
    plans, ends = real(requests, depth, blocks=150)
    simulated_plans, fleet = simulated(requests, depth, forward=False, blocks=150)
    assert simulated_plans == plans
    assert {r.id: r.end_s for r in fleet.records} == pytest.approx(ends, abs=1e-9)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("rate", [3.0, 12.0, 40.0])
def test_going_forward_changes_no_record(depth: int, rate: float) -> None:
    requests = mixed(80, rate, seed=1)
    plans, slow = simulated(requests, depth, forward=False)
    fewer, fast = simulated(requests, depth, forward=True)
    assert len(fewer) < 0.9 * len(plans), "it hardly ever went forward"
    assert fast.usage.steps == slow.usage.steps
    assert fast.usage.busy_s == pytest.approx(slow.usage.busy_s)
    for one, two in zip(
        *(sorted(f.records, key=lambda r: int(r.id)) for f in (slow, fast)), strict=True
    ):
        first, second = one.to_dict(), two.to_dict()
        assert second.pop("gaps_s", []) == pytest.approx(first.pop("gaps_s", []), abs=1e-5)
        for name in ("first_s", "last_s", "end_s", "scheduled_s", "longest_stall_s"):
            assert second.pop(name, 0.0) == pytest.approx(first.pop(name, 0.0), abs=1e-6)
        assert second == first
    assert fast.gaps.total == slow.gaps.total
    assert fast.gaps.percentile(50) == pytest.approx(slow.gaps.percentile(50), rel=0.03)


def test_what_can_never_run_is_an_error_of_its_own() -> None:
    _, fleet = simulated([request(0, 1.0, 5000), request(1, 1.0)], 2, forward=True)
    assert {r.id: r.error for r in fleet.records} == {"0": "context_length_exceeded", "1": ""}
    assert fleet.records[0].end_s == 1.0
