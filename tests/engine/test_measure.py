"""A measured entry is a valid one, of this machine's order of magnitude."""

from __future__ import annotations

import torch

from penstock.engine import measure
from penstock.sizing.hardware import read_devices, write_devices

CPU = torch.device("cpu")


def test_a_measured_entry_can_be_planned_with() -> None:
    made = measure.measure("here", CPU, "measured for a test", runs=1)
    assert read_devices(write_devices([made]), "own") == (made,)
    assert made.kind == "cpu"
    assert 1e8 < made.bandwidth < 1e13
    assert made.rates.fp32 is not None
    assert 1e8 < made.rates.fp32 < 1e14
    assert made.memory_bytes == measure.memory_bytes(CPU) > 2**30
