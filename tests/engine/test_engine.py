"""What the loop tells of its steps; the loop itself is driven by test_mix.py."""

from __future__ import annotations

import time

import pytest

from penstock.core.blocks import BlockPool
from penstock.core.clock import ManualClock
from penstock.core.limits import Limits
from penstock.core.plan import StepResult
from penstock.core.policy import fcfs
from penstock.core.scheduler import Scheduler
from penstock.engine.client import EngineStats
from penstock.engine.engine import Engine
from tests.fakes import FULL, FakeExecutor, submission

KERNEL_S = 0.01


class Timed(FakeExecutor):
    """Spends half of each step in kernels."""

    def __init__(self, kernel_s: float | None) -> None:
        super().__init__(FULL, 4)
        self._kernel_s = kernel_s

    def collect(self) -> StepResult:
        result = super().collect()
        time.sleep(2 * KERNEL_S)
        result.prepare_s, result.forward_s, result.sample_s = 0.001, 0.002, 0.003
        result.kernel_s = self._kernel_s
        return result

    def close(self) -> None:
        pass


@pytest.mark.parametrize("kernel_s", [KERNEL_S, None])
def test_a_step_tells_where_its_time_went(kernel_s: float | None) -> None:
    told: list[EngineStats] = []
    scheduler = Scheduler(Limits(4, 16, 64, 1), BlockPool(16, 4), FULL, fcfs, ManualClock())
    engine = Engine(scheduler, Timed(kernel_s), ManualClock(), lambda _, stats: told.append(stats))
    scheduler.add(submission("a", [1, 2, 3], 3))
    while scheduler.has_work:
        engine.step()
    assert len(told) == 3
    for stats in told:
        assert (stats.prepare_s, stats.forward_s, stats.sample_s) == (0.001, 0.002, 0.003)
        assert stats.step_s >= 2 * KERNEL_S
        # Whatever the host does besides only raises its share.
        assert stats.host_share is None if kernel_s is None else 0.5 <= stats.host_share < 1
    assert told[1].publish_s > 0
