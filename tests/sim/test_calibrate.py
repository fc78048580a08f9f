from __future__ import annotations

from typing import Any

import pytest

from penstock.core.events import Scheduled, TokensOut
from penstock.core.step_time import Work, work_of
from penstock.errors import ConfigError
from penstock.sim.calibrate import _count, from_log
from penstock.sim.costs import FittedCosts
from tests.fakes import FULL, FakeExecutor, submission
from tests.sim.parts import COSTS, engine


def log_of_a_run() -> tuple[list[dict[str, Any]], dict[int, Work]]:
    """What the server's log says of six requests of one engine, and what its plans really were."""
    from penstock.core.clock import ManualClock

    scheduler = engine(depth=1).scheduler(ManualClock())
    executor = FakeExecutor(FULL, 16)
    lengths = {f"r{i}": 20 + 30 * i for i in range(6)}
    choices: dict[str, dict[str, Any]] = {
        name: {"chunks": [], "steps": [], "at": 0} for name in lengths
    }
    truth: dict[int, Work] = {}
    columns: dict[str, list[float]] = {"step": [], "step_us": []}
    waiting = list(lengths)
    while waiting or scheduler.has_work:
        for name in waiting[:2]:
            scheduler.add(submission(name, range(int(name[1]), lengths[name] + int(name[1])), 12))
        del waiting[:2]
        plan = scheduler.schedule()
        members = [m.id for m in scheduler._in_flight[-1][1]]
        truth[plan.step] = work_of(plan)
        columns["step"].append(plan.step)
        columns["step_us"].append(1e6 * COSTS.seconds(truth[plan.step]))
        executor.submit(plan)
        scheduler.apply(executor.collect())
        for name, start, count in zip(members, plan.starts, plan.counts, strict=True):
            if start < lengths[name]:
                choices[name]["chunks"].append([0.0, plan.step, start, count])
        for event in scheduler.take_events():
            if isinstance(event, TokensOut):
                choices[event.id]["steps"].append([event.step, 1])
            assert not isinstance(event, Scheduled) or event.cached_tokens == 0
    requests = [
        {"t": "request", "engine": 0, "num_prompt": lengths[name], "choices": [choice]}
        for name, choice in choices.items()
    ]
    return [{"t": "steps", "engine": 0, **columns}, *requests, {"t": "note"}], truth


def test_the_log_tells_what_each_step_computed() -> None:
    log, truth = log_of_a_run()
    works: dict[int, list[int]] = {}
    for record in log:
        for choice in record.get("choices", ()):
            _count(works, choice, record["num_prompt"])
    assert {step: Work(*work) for step, work in works.items()} == truth


def test_costs_come_back_from_the_log() -> None:
    log, truth = log_of_a_run()
    log[0]["step_us"][3] *= 100  # the machine stood still
    costs = from_log(log)
    assert isinstance(costs, FittedCosts)
    for work in truth.values():
        assert costs.seconds(work) == pytest.approx(COSTS.seconds(work), rel=0.02)


def test_a_log_without_steps_is_refused() -> None:
    with pytest.raises(ConfigError, match="no steps"):
        from_log([{"t": "header"}])
    log, _ = log_of_a_run()
    with pytest.raises(ConfigError, match="no steps"):
        from_log(log, engine=3)
