"""What each simulated engine is: limits, cache, policy and costs."""

from __future__ import annotations

from dataclasses import dataclass, field

from penstock.config.engine import EngineConfig
from penstock.core.blocks import BlockPool
from penstock.core.clock import Clock
from penstock.core.limits import Limits
from penstock.core.plan import KVGroup
from penstock.core.scheduler import Scheduler
from penstock.core.slo_scheduler import make_scheduler
from penstock.sim.costs import Costs

ALL_LAYERS = (KVGroup((0,)),)


@dataclass(frozen=True, slots=True)
class EngineSpec:
    limits: Limits
    num_blocks: int
    costs: Costs
    block_size: int = 16
    prefix_caching: bool = True
    config: EngineConfig = field(default_factory=EngineConfig)
    """says the policy"""
    groups: tuple[KVGroup, ...] = ALL_LAYERS

    def scheduler(self, clock: Clock, watched: bool = False) -> Scheduler:
        """The production scheduler over an empty cache. watched: a router is told of its blocks."""
        pool = BlockPool(self.num_blocks, self.block_size, self.prefix_caching)
        if watched:
            pool.watch(next((g for g, group in enumerate(self.groups) if not group.window), 0))
        return make_scheduler(self.config, self.limits, pool, self.groups, clock)
