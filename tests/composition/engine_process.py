"""The engine process of these tests: the real one, whose scheduler proves its books whenever it
rests (those that do not balance end it), and which preempts requests where memory is short."""

from __future__ import annotations

import sys

from penstock.config import Config
from penstock.core.events import Event
from penstock.engine.activity import Activity
from penstock.engine.build import build_engine
from penstock.engine.client import EngineStats, ModelInfo
from penstock.engine.clock import MonotonicClock
from penstock.engine.engine import Engine, Publish
from penstock.engine.process import main


class Watched:
    """Told of every step, as the engine's `publish`."""

    def __init__(self, publish: Publish, preempts: bool) -> None:
        self.engine: Engine | None = None
        self._publish = publish
        self._preempts = preempts
        self._steps, self._next = 0, 4

    def __call__(self, events: list[Event], stats: EngineStats) -> None:
        if self.engine is not None:
            self._look(self.engine)
        self._publish(events, stats)

    def _look(self, engine: Engine) -> None:
        scheduler = engine.scheduler
        if not scheduler.has_work:
            scheduler.check()
        self._steps += 1
        if self._preempts and self._steps >= self._next:  # ever rarer, so that all comes to an end
            found = any(scheduler.preempt(request_id) for request_id in scheduler.live_ids())
            self._next *= 2 if found else 1


def build(
    config: Config, publish: Publish, activity: Activity, index: int
) -> tuple[Engine, ModelInfo]:
    watched = Watched(publish, config.engine.kv_cache_memory_bytes is not None)
    engine, info = build_engine(config, MonotonicClock(), watched, activity, index)
    watched.engine = engine
    return engine, info


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), build))
