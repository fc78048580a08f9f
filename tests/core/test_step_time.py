from __future__ import annotations

import random

import pytest

from penstock.core.plan import StepPlan
from penstock.core.step_time import FEW, StepTime, StepTimes, Work, chunk_attends, fit, work_of

TRUE = StepTime((2e-3, 1e-4, 1e-7, 1e-3, 5e-5, 1e-8))


def works(count: int, seed: int = 0) -> list[Work]:
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        rows, prefill = rng.randrange(0, 64), rng.choice([0, 0, rng.randrange(2, 512)])
        context = rows * rng.randrange(10, 2000)
        found.append(Work(max(1, rows), context, prefill, prefill * rng.randrange(1, 4000)))
    return found


def test_work_of_a_plan() -> None:
    plan = StepPlan(0, starts=[9, 0, 100], counts=[1, 4, 8], slots=[0, 1, 2])
    assert work_of(plan) == Work(1, 10, 12, (1 + 2 + 3 + 4) + sum(range(101, 109)))
    assert chunk_attends(0, 3) == 6


def test_a_linear_cost_is_found_exactly() -> None:
    model = fit([(work, TRUE.seconds(work)) for work in works(300)])
    for work in works(50, seed=1):
        assert model.seconds(work) == pytest.approx(TRUE.seconds(work), rel=0.01)


def test_it_learns_and_follows_a_change() -> None:
    times = StepTimes()
    assert times.seconds(Work(1, 10)) is None
    for work in works(FEW):
        times.note(work, TRUE.seconds(work))
    assert times.seconds(Work(1, 10)) is not None
    for work in works(500):
        times.note(work, TRUE.seconds(work))
    probe = Work(32, 20_000, 100, 30_000)
    assert times.seconds(probe) == pytest.approx(TRUE.seconds(probe), rel=0.05)
    for _ in range(20):
        for work in works(500):
            times.note(work, 3 * TRUE.seconds(work))
    assert times.seconds(probe) == pytest.approx(3 * TRUE.seconds(probe), rel=0.1)


def test_no_term_is_negative() -> None:
    """Noise must not make longer contexts cheaper: predictions far out would turn negative."""
    rng = random.Random(3)
    model = fit([(work, 0.01 * rng.uniform(0.5, 1.5)) for work in works(100)])
    assert min(model.weights) >= 0
    with pytest.raises(ValueError, match="no steps"):
        fit([])
