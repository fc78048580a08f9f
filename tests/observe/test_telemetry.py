from __future__ import annotations

import os

from penstock.core.records import Device, EngineState
from penstock.engine.client import EngineStats
from penstock.observe import telemetry


def test_processes_host_and_engines() -> None:
    reader = telemetry.Reader(lambda: {"engine": os.getppid(), "gone": 2**22 + 1})
    found = reader.read(3, {1: (0.0, EngineStats(at=0.0, step=9, running=2, waiting=1))})
    assert set(found.cpu_s) == set(found.rss_bytes) == {"api", "engine"}
    assert found.rss_bytes["api"] > 2**20
    assert found.memory_available_bytes > 0
    assert found.open_requests == 3
    (state,) = found.engines
    assert state == EngineState(1, 9, state.age_s, 2, 1)
    assert found.gpus is None, "nobody to ask is not the same as idle"


def test_sensors() -> None:
    device = Device("H200", temperature_c=70.0)
    reader = telemetry.Reader(gpus=lambda: [device], cpu=lambda: Device("cpu", clock_mhz=2000.0))
    found = reader.read(0, {})
    assert found.gpus == [device]
    assert found.cpu_mhz == 2000.0
    assert telemetry.Reader(cpu=lambda: None).read(0, {}).cpu is None
    sensed = telemetry.cpu_sensor()
    assert sensed is None or sensed.name == "cpu"
