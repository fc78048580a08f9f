"""Faults of machines, which their sensors show, and of replicas, which show beside a peer."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.core.records import Device
from penstock.engine.runner import ModelRunner
from penstock.llm import AsyncLLM
from penstock.llm.offline import config_of, start_in_process
from tests.debug import runs
from tests.debug.runs import ask, record, text
from tests.drill.faults import FAULTS, broken, crowd, fault

__all__ = ["FAULTS"]

# The machine, by its sensors


def sensing(early: int = 8, **change: Any) -> Callable[[], list[Device]]:
    """An accelerator in good order whose readings then change; a value may be a list of two, for
    the `early` readings and those after."""
    turns = itertools.count()

    def read() -> list[Device]:
        late = next(turns) >= early
        now = {k: v[late] if isinstance(v, list) else v for k, v in change.items()}
        good: dict[str, Any] = {
            "temperature_c": 61.0,
            "power_w": 500.0,
            "clock_mhz": 1980.0,
            "utilisation": 0.95,
            "throttle": [],
            "ecc_errors": 0,
        }
        return [Device("accelerator", **{**good, **now})]

    return read


def watched(folder: Path, sensor: Callable[[], list[Device]], requests: int = 8) -> None:
    """A run with a reading or two for each of its requests."""

    async def script(llm: AsyncLLM) -> None:
        for i in range(requests):
            await ask(llm, text(i, 5), max_tokens=2)
            await asyncio.sleep(0.05)

    record(folder, script, sensor=sensor, log_telemetry_s=0.001)


@fault("thermal-throttle")
def thermal_throttle(folder: Path) -> None:
    hot = {"temperature_c": [65.0, 88.0], "clock_mhz": [1980.0, 1400.0]}
    watched(folder, sensing(**hot, throttle=[[], ["hw_thermal_slowdown"]]))


@fault("clock-drop")
def clock_drop(folder: Path) -> None:
    watched(folder, sensing(20, clock_mhz=[1980.0, 1200.0], power_w=[500.0, 240.0]), 24)


@fault("device-errors")
def device_errors(folder: Path) -> None:
    watched(folder, sensing(xid=[None, 79], ecc_errors=[0, 3]))


# Beside a peer


def together(folder: Path, *kinds: dict[str, Any], slow: float = 0.0) -> None:
    """Two replicas that serve at the same time over one folder; the second may be slower."""

    async def run() -> None:
        made: list[AsyncLLM] = []
        for options in kinds:
            config = config_of(**{**runs.SMALL, "log_dir": str(folder), **options})
            made.append(await start_in_process(config))
        await asyncio.gather(*(crowd(4, max_tokens=40, ignore_eos=True)(llm) for llm in made))
        for llm in made:
            await llm.close()

    if not slow:
        asyncio.run(run())
        return
    runners: dict[int, int] = {}

    def wrap(whole: Any) -> Any:
        def uneven(self: ModelRunner, plan: Any) -> Any:
            began = time.perf_counter()
            result = whole(self, plan)
            time.sleep(0.01 + (slow if runners.setdefault(id(self), len(runners)) else 0.0))
            result.device_s = time.perf_counter() - began
            return result

        return uneven

    with broken(ModelRunner, "run", wrap):
        asyncio.run(run())


@fault("slow-replica")
def slow_replica(folder: Path) -> None:
    together(folder, {}, {}, slow=0.03)


@fault("replicas-differ")
def replicas_differ(folder: Path) -> None:
    other = "{% for m in messages %}{{ m.content }}{% endfor %}"
    together(folder, {}, {"chat_template": other})


def one_after_the_other(folder: Path, before: dict[str, Any], after: dict[str, Any]) -> None:
    record(folder, crowd(4, max_tokens=40), **before)
    record(folder, crowd(4, max_tokens=40), **after)


@fault("revision-drift")
def revision_drift(folder: Path) -> None:
    other = "{% for m in messages %}{{ m.content }}{% endfor %}"
    one_after_the_other(folder, {}, {"chat_template": other})


@fault("slower-revision")
def slower_revision(folder: Path) -> None:
    def timed(seconds: float) -> Callable[[Any], Any]:
        def wrap(whole: Any) -> Any:
            def run(self: ModelRunner, plan: Any) -> Any:
                result = whole(self, plan)
                time.sleep(seconds)
                result.device_s += seconds
                return result

            return run

        return wrap

    for seconds, options in ((0.01, {}), (0.04, {"max_num_batched_tokens": 128})):
        with broken(ModelRunner, "run", timed(seconds)):
            record(folder, crowd(4, max_tokens=40), **options)
