"""The scheduler's own time: schedule + apply with 256 running requests, no model behind them.

    python -m benchmarks.engine.scheduler [--steps 1000]

An executor that answers at once stands where the model would; blocks fill up and are committed to
the prefix index as in service. Goal 0.2 ms, bound 1 ms (median).
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

from benchmarks.harness import arguments, random_ids, save, verdict
from penstock.core.blocks import BlockPool
from penstock.core.clock import ManualClock
from penstock.core.limits import Limits
from penstock.core.plan import KVGroup, StepPlan, StepResult
from penstock.core.policy import make_policy
from penstock.core.request import Sampling, Submission
from penstock.core.scheduler import Scheduler
from penstock.report.stats import Spread


def answer(plan: StepPlan) -> StepResult:
    """One token, a different one each step, to each row that wants one."""
    return StepResult(plan.step, [[plan.step % 1000] for wanted in plan.samples if wanted])


def make_scheduler(given: Any, depth: int) -> Scheduler:
    """`requests` that have read their prompts and will decode for longer than is measured."""
    output_len = 2 * given.steps + 64
    per_request = -(-(given.prompt_len + output_len) // given.block_size)
    scheduler = Scheduler(
        Limits(given.requests, 4096, given.prompt_len + output_len, depth),
        BlockPool(given.requests * per_request, given.block_size, True),
        (KVGroup(layers=(0,)),),
        make_policy("fcfs", 10.0),
        ManualClock(),
    )
    for index in range(given.requests):
        prompt = random_ids(given.prompt_len, 50_000, index)
        sampling = Sampling(max_tokens=output_len)
        scheduler.add(Submission(f"r{index}", prompt, sampling))
    while scheduler.num_waiting or scheduler.num_running < given.requests:
        scheduler.apply(answer(scheduler.schedule()))
    for _ in range(8):
        scheduler.apply(answer(scheduler.schedule()))
    scheduler.take_events()
    return scheduler


def measure(given: Any, depth: int) -> list[float]:
    """Seconds of each decode step. With depth 2 one plan is always on its way, as in service."""
    scheduler = make_scheduler(given, depth)
    ahead = [scheduler.schedule() for _ in range(depth - 1)]
    times = []
    for _ in range(given.steps):
        began = perf_counter()
        plan = scheduler.schedule()
        scheduled = perf_counter()
        ahead.append(plan)
        result = answer(ahead.pop(0))
        collected = perf_counter()
        scheduler.apply(result)
        times.append(scheduled - began + perf_counter() - collected)
        assert len(plan.slots) == given.requests
        scheduler.take_events()
    return times


def main() -> None:
    given = arguments(__doc__ or "", requests=256, steps=1000, prompt_len=100, block_size=16)
    figures = {}
    print(f"{'depth':>6}{'mean ms':>10}{'p50 ms':>10}{'p99 ms':>10}")
    for depth in (1, 2):
        # The best of the turns: others on the machine only ever add time.
        turns = [Spread.of(measure(given, depth)).scaled(1e3) for _ in range(given.pairs)]
        best = min(turns, key=lambda spread: spread.p50)
        figures[f"depth {depth}"] = [spread.to_dict() for spread in turns]
        print(f"{depth:6}{best.mean:10.3f}{best.p50:10.3f}{best.p99:10.3f}")
        print(verdict(f"depth {depth}: median step, ms", best.p50, "<= 1", best.p50 <= 1))
    save("scheduler", given, {"steps_ms": figures})


if __name__ == "__main__":
    main()
