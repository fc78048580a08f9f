"""An engine process without a model: the real loop and scheduler over the scripted executor.

It starts without torch. A step takes a millisecond. Some prompts are trouble: with HANG, engine 0
hangs in its step; with CRASH, any engine ends.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from penstock.config import Config
from penstock.core.blocks import BlockPool
from penstock.core.plan import StepPlan, StepResult
from penstock.core.policy import make_policy
from penstock.core.scheduler import Limits, Scheduler
from penstock.engine.activity import Activity
from penstock.engine.client import ModelInfo
from penstock.engine.clock import MonotonicClock
from penstock.engine.engine import Engine, Publish
from penstock.engine.process import main
from tests.fakes import FULL, FakeExecutor

BLOCK_SIZE, NUM_BLOCKS, CONTEXT = 4, 400, 512
STEP_S = 0.001
HANG, CRASH = 77, 78


class SlowExecutor(FakeExecutor):
    def __init__(self, index: int) -> None:
        super().__init__(FULL, BLOCK_SIZE)
        self.index = index

    def submit(self, plan: StepPlan) -> None:
        super().submit(plan)
        self.plans.clear()

    def collect(self) -> StepResult:
        time.sleep(STEP_S)
        new = {token for entry in self.queue[0].entries for token in entry.tokens}
        if HANG in new and self.index == 0:
            time.sleep(1000)
        if CRASH in new:
            os._exit(3)
        return super().collect()

    def close(self) -> None: ...


def build(
    config: Config, publish: Publish, activity: Activity, index: int
) -> tuple[Engine, ModelInfo]:
    pool = BlockPool(NUM_BLOCKS, BLOCK_SIZE)
    if config.engine.data_parallel_size > 1:
        pool.watch(0)
    limits = Limits(config.engine.max_num_seqs, 64, CONTEXT, config.engine.scheduler_depth)
    clock = MonotonicClock()
    scheduler = Scheduler(limits, pool, FULL, make_policy("fcfs", 1.0), clock, "fake")
    fields: dict[str, Any] = {"dtype": "none", "device": "none", "architecture": "Fake"}
    info = ModelInfo(
        50, CONTEXT, (), BLOCK_SIZE, NUM_BLOCKS, limits.max_num_seqs, 64, cache_key="fake", **fields
    )
    return Engine(scheduler, SlowExecutor(index), clock, publish, activity), info


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), build))
