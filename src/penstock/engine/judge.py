"""Each step held against the hardware: what it moved and computed, and how long that must take.

The hardware is an entry of the table: named, or found by a GPU's name, or measured. A measurement
takes a second and is kept beside the prepared weights; `penstock hw measure` makes a better one.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from penstock.core.plan import StepPlan
from penstock.engine.client import EngineStats
from penstock.engine.measure import measure
from penstock.engine.packs import user_cache
from penstock.errors import CheckpointError, ConfigError
from penstock.sizing.floor import Ceiling, StepWork
from penstock.sizing.hardware import Device, choose, read_devices, table, write_devices
from penstock.sizing.precision import PRECISIONS, Precision
from penstock.sizing.shape import read_shape

RUNS = 3
"""of each measurement at a start"""
PLAIN = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


class Judge:
    """Writes the work of a step, its floor and its bound into the statistics."""

    def __init__(self, work: StepWork | None, ceiling: Ceiling | None) -> None:
        self._work = work
        self._ceiling = ceiling

    def note(self, plan: StepPlan, stats: EngineStats) -> None:
        """stats: with the times of the same step."""
        if self._work is None:
            return
        work = self._work.of(plan.starts, plan.counts, sum(plan.samples))
        stats.bytes_moved, stats.operations = work.bytes_moved, work.operations
        if self._ceiling is not None:
            stats.floor_s, stats.bound = work.floor(self._ceiling)
            if stats.step_s - stats.device_s > stats.floor_s:
                stats.bound = "host"  # the device waited for longer than it had to work


def step_work(
    raw: dict[str, Any], format: str, dtype: torch.dtype, kv_layer_bytes: float
) -> StepWork | None:
    """Of a config.json; None for a shape that `sizing` does not know."""
    try:
        return StepWork(read_shape(json.dumps(raw)), _precision(format, dtype), kv_layer_bytes)
    except CheckpointError:
        return None


def _precision(format: str, dtype: torch.dtype) -> Precision:
    found = PRECISIONS[PLAIN[dtype] if format == "none" else format]
    return replace(found, value_bytes=dtype.itemsize)


def ceiling(device: Device, format: str, dtype: torch.dtype, processes: int) -> Ceiling | None:
    """What this arithmetic can reach: ranks on CPUs share one device, on GPUs each has its own.
    None where the entry lacks the arithmetic."""
    rate = device.rates.of(_precision(format, dtype).arithmetic)
    count = processes if device.kind == "gpu" else 1
    return None if rate is None else Ceiling(device.bandwidth * count, rate * count)


def find_device(wanted: str | None, device: torch.device, processes: int) -> tuple[Device, str]:
    """(the entry, where it is from in words). processes: that share a CPU's threads. Raises
    ConfigError for a name or file that is none."""
    if wanted is not None:
        found = _named(wanted)
    elif device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        known = [entry for entry in table().values() if entry.name in name]
        found = known[0] if known else measure(name, device, f"measured at start, {name}", RUNS)
    else:
        found = _measured_cpu(torch.get_num_threads() * processes)
    rates = ", ".join(
        f"{name} {rate / 1e9:,.0f}"
        for name in found.rates.__slots__
        if (rate := found.rates.of(name)) is not None
    )
    note = f"hardware: {found.bandwidth / 1e9:.1f} GB/s, G operations/s {rates} ({found.source})"
    return found, note


def _named(wanted: str) -> Device:
    path = Path(wanted).expanduser()
    if not path.is_file():
        try:
            return choose([wanted], table())[0]
        except ConfigError as error:
            raise ConfigError(error.message, cure=error.cure, param="roofline_hardware") from None
    try:
        devices = read_devices(path.read_text(encoding="utf-8"), wanted)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--roofline-hardware {wanted} cannot be read: {error}.", param="roofline_hardware"
        ) from None
    if len(devices) != 1:
        raise ConfigError(
            f"--roofline-hardware {wanted} has {len(devices)} entries.",
            cure="Give a file with one, as penstock hw measure writes it.",
            param="roofline_hardware",
        )
    return devices[0]


def _measured_cpu(threads: int) -> Device:
    """This machine with so many threads, as an earlier start found it, or measured now."""
    name = f"cpu-{threads}"
    path = user_cache() / f"hardware-{name}.toml"
    with suppress(OSError, UnicodeDecodeError, ConfigError):
        (kept,) = read_devices(path.read_text(encoding="utf-8"), str(path))
        return kept
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        note = f"measured at a start with {threads} threads, kept in {path}"
        found = measure(name, torch.device("cpu"), note, RUNS)
    finally:
        torch.set_num_threads(before)
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text(write_devices([found]), encoding="utf-8")
    return found
