"""What each class of request is promised, and the queue's order by it.

Least slack first: slack at time t is deadline - t - (time that the request still needs). The term
in t is common to all, so that the order of two requests never changes and the key needs no clock.
The deadline of `batch` is far away: it bounds how long newer work may go first: nothing starves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from penstock.config.engine import EngineConfig

CLASSES = ("interactive", "agent", "batch")


@dataclass(frozen=True, slots=True)
class Promise:
    """Of one class, in seconds."""

    ttft_s: float
    itl_s: float


@dataclass(frozen=True, slots=True)
class Promises:
    """By class; `default` is the class of requests that name none."""

    interactive: Promise = Promise(1.0, 0.2)
    agent: Promise = Promise(5.0, 0.5)
    batch: Promise = Promise(600.0, math.inf)
    default: str = "interactive"

    @classmethod
    def of_config(cls, engine: EngineConfig) -> Promises:
        return cls(
            Promise(engine.slo_interactive_ttft_s, engine.slo_interactive_itl_s),
            Promise(engine.slo_agent_ttft_s, engine.slo_agent_itl_s),
            Promise(engine.slo_batch_ttft_s, math.inf),
            engine.default_slo_class,
        )

    def of(self, name: str) -> Promise:
        promise: Promise = getattr(self, name or self.default)
        return promise

    def is_batch(self, name: str) -> bool:
        """Whether it fills idle capacity and steps aside."""
        return (name or self.default) == "batch"
