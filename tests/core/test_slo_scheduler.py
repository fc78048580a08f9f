from __future__ import annotations

import pytest

from penstock.core.blocks import BlockPool
from penstock.core.clock import ManualClock
from penstock.core.events import Preempted, Queued, TokensOut
from penstock.core.limits import Limits
from penstock.core.plan import StepPlan, StepResult
from penstock.core.slo import Promise, Promises
from penstock.core.slo_scheduler import LEAST_CHUNK, SloScheduler
from penstock.core.step_time import StepTime, StepTimes, work_of
from penstock.errors import InvalidFieldError, SloMissError
from tests.fakes import FULL, submission

COST = StepTime((0.01, 0.001, 0.0, 0.0, 0.001, 0.0))
PROMISES = Promises(Promise(1.0, 0.05), Promise(5.0, 0.2), Promise(100.0, 10.0))


class Bench:
    """A scheduler whose steps take what COST says."""

    def __init__(self, seqs: int = 4, blocks: int = 200, known: bool = True) -> None:
        self.clock = ManualClock(1.0)
        self.scheduler = SloScheduler(
            Limits(seqs, 256, 2000), BlockPool(blocks, 16), FULL, self.clock, promises=PROMISES
        )
        if known:
            self.scheduler.step_times.fitted = COST
        self.plans: list[StepPlan] = []
        self.first: dict[str, float] = {}
        self.events: list[object] = []

    def add(self, name: str, kind: str, tokens: int = 64, output: int = 20) -> None:
        prompt = [hash(name) % 1000] * tokens
        self.scheduler.add(
            submission(name, prompt, output, slo_class=kind, arrival_s=self.clock.now())
        )

    def step(self, count: int = 1) -> StepPlan:
        for _ in range(count):
            plan = self.scheduler.schedule()
            if not plan.slots:
                return plan
            self.plans.append(plan)
            self.clock.advance(COST.seconds(work_of(plan)))
            self.scheduler.apply(StepResult(plan.step, [[5] for wanted in plan.samples if wanted]))
            for event in self.scheduler.take_events():
                self.events.append(event)
                if isinstance(event, TokensOut):
                    self.first.setdefault(event.id, event.at)
            self.scheduler.check()
        return plan


def test_the_least_slack_goes_first() -> None:
    """An agent that waits long comes before an interactive one that just came, and the length of
    a prompt counts."""
    bench = Bench(seqs=1)
    bench.add("running", "interactive", output=2000 - 64)
    bench.step()
    bench.scheduler.limits = Limits(8, 256, 2000)  # nothing is refused for want of slots
    bench.add("agent", "agent")
    bench.clock.advance(4.5)
    bench.add("new", "interactive")
    orders = {r.id: r.order for r in bench.scheduler._waiting}
    assert orders["agent"] < orders["new"]
    bench.add("long", "interactive", tokens=500)
    assert {r.id: r.order for r in bench.scheduler._waiting}["long"] < orders["new"]


def test_batch_steps_aside_within_one_step() -> None:
    bench = Bench(seqs=2)
    bench.add("b1", "batch", output=200)
    bench.add("b2", "batch", output=200)
    bench.step(3)
    bench.add("i", "interactive")
    plan = bench.step()
    assert "i" in {entry.id for entry in plan.entries}
    assert [e.id for e in bench.events if isinstance(e, Preempted)] == ["b2"]
    bench.step(400)
    assert not bench.scheduler.has_work, "and comes back"


def test_batch_reads_after_those_that_may_not_wait() -> None:
    bench = Bench()
    bench.add("b", "batch", tokens=1500)
    bench.step()
    bench.add("i", "interactive", tokens=240)
    plan = bench.step()
    assert plan.counts[0] == 240
    assert bench.first["i"] < 2.0
    assert "b" not in bench.first


def test_chunks_keep_the_tightest_promise_between_tokens() -> None:
    bench = Bench()
    bench.add("i", "interactive", output=60)
    bench.step(2)
    bench.add("b", "batch", tokens=600)
    for _ in range(10):
        plan = bench.step()
        assert COST.seconds(work_of(plan)) <= 0.05
        assert max(plan.counts) >= LEAST_CHUNK, "and reads on all the same"


def test_batch_is_left_out_of_a_step_that_would_be_too_long() -> None:
    bench = Bench(seqs=64)
    bench.add("i", "interactive", output=300)
    for number in range(50):
        bench.add(f"b{number}", "batch", tokens=16, output=100)
    bench.step(120)
    late = [plan for plan in bench.plans[5:] if len(plan.slots) > 1]
    assert late
    assert all(COST.seconds(work_of(plan)) <= 0.05 for plan in late)
    assert not bench.scheduler.decodes_all or len(bench.scheduler._decoding) < 40
    bench.step(2000)
    assert not bench.scheduler.has_work


def test_what_would_miss_its_promise_is_refused_with_the_reason() -> None:
    bench = Bench(seqs=8)
    bench.add("first", "interactive", tokens=600)
    with pytest.raises(SloMissError, match=r"promised 1 s") as caught:
        bench.add("second", "interactive", tokens=600)
    assert caught.value.retry_after_s is not None
    assert caught.value.retry_after_s > 0
    bench.add("agent", "agent", tokens=600)
    bench.add("batch", "batch", tokens=1500)
    assert bench.scheduler.live_ids() == ["first", "agent", "batch"]
    with pytest.raises(InvalidFieldError, match="slo_class"):
        bench.add("x", "urgent")
    with pytest.raises(InvalidFieldError, match="slo_class"):
        bench.add("x", "default")


def test_predictions_are_near_what_then_happens() -> None:
    bench = Bench(seqs=8)
    for number in range(6):
        bench.add(f"r{number}", "agent", tokens=150)
    bench.step()
    told = {e.id: e.predicted_ttft_s for e in bench.events if isinstance(e, Queued)}
    bench.step(30)
    for name, predicted in list(told.items())[1:]:  # the first shares its step with later ones
        assert predicted == pytest.approx(bench.first[name] - 1.0, rel=0.35), name


def test_nothing_starves() -> None:
    """Interactive requests that never stop coming: batch work still ends, once its own deadline
    has passed."""
    bench = Bench(seqs=2)
    bench.add("b", "batch", output=100)
    number = 0
    while "b" in bench.scheduler.live_ids():
        while bench.scheduler.num_waiting < 2:
            number += 1
            try:
                bench.add(f"i{number}", "interactive", output=10)
            except SloMissError:
                break
        bench.step()
        assert bench.clock.now() < 1 + PROMISES.batch.ttft_s + 30
    assert number > 100


def test_it_learns_what_steps_cost() -> None:
    bench = Bench(known=False)
    for number in range(30):
        bench.add(f"r{number}", "agent", tokens=20 + 7 * number, output=5 + number % 7)
        bench.step(3)
    assert isinstance(bench.scheduler.step_times, StepTimes)
    found = bench.scheduler.step_times.fitted
    assert found is not None
    for plan in bench.plans[-20:]:
        work = work_of(plan)
        assert found.seconds(work) == pytest.approx(COST.seconds(work), rel=0.1)
