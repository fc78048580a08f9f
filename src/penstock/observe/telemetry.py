"""What the machine does: CPU and memory of our processes and of the host, accelerators by sensors.

A sensor that is not there reads as null, never as zero.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import psutil

from penstock.core.records import Device, EngineState, Telemetry

if TYPE_CHECKING:
    from penstock.engine.client import EngineStats


class Sensor(Protocol):
    """Reads the accelerators; None: there are none, or nobody who could be asked."""

    def __call__(self) -> list[Device] | None: ...


def no_sensor() -> list[Device] | None:
    return None


def cpu_sensor() -> Device | None:
    """The CPU package's temperature and clocks, where the host shows them."""
    temperatures: dict[str, Any] = getattr(psutil, "sensors_temperatures", dict)()
    packages = [
        entry.current
        for name in ("coretemp", "k10temp", "zenpower")
        for entry in temperatures.get(name, [])
    ]
    clock: Any = psutil.cpu_freq()  # None on hosts that do not tell
    if not packages and clock is None:
        return None
    return Device(
        "cpu",
        temperature_c=max(packages, default=None),
        clock_mhz=None if clock is None else round(clock.current, 1),
        clock_max_mhz=None if clock is None or not clock.max else clock.max,
    )


class Reader:
    """Makes telemetry records. processes: ids of the engines' processes, by role."""

    def __init__(
        self,
        processes: Callable[[], Mapping[str, int]] = dict,
        gpus: Sensor = no_sensor,
        cpu: Callable[[], Device | None] = cpu_sensor,
    ) -> None:
        self._processes, self._gpus, self._cpu = processes, gpus, cpu
        self._known: dict[int, psutil.Process] = {}
        psutil.cpu_percent()  # the first call begins the interval

    def read(
        self, open_requests: int, engines: Mapping[int, tuple[float, EngineStats]]
    ) -> Telemetry:
        """engines: when each last said anything, and what."""
        now = time.monotonic()
        cpu_s: dict[str, float] = {}
        rss: dict[str, int] = {}
        for role, pid in {"api": os.getpid(), **self._processes()}.items():
            try:
                process = self._known.setdefault(pid, psutil.Process(pid))
                with process.oneshot():
                    times = process.cpu_times()
                    cpu_s[role] = round(times.user + times.system, 3)
                    rss[role] = process.memory_info().rss
            except psutil.Error:
                self._known.pop(pid, None)  # it ended
        cpu = self._cpu()
        return Telemetry(
            at=round(now, 6),
            cpu_s=cpu_s,
            rss_bytes=rss,
            cpu_share=psutil.cpu_percent() / 100,
            cpu_mhz=None if cpu is None else cpu.clock_mhz,
            load_1m=round(psutil.getloadavg()[0], 2),
            memory_available_bytes=psutil.virtual_memory().available,
            open_requests=open_requests,
            engines=[
                EngineState(index, stats.step, round(now - at, 3), stats.running, stats.waiting)
                for index, (at, stats) in sorted(engines.items())
            ],
            gpus=self._gpus(),
            cpu=cpu,
        )
