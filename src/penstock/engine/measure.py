"""What this machine really does: bandwidth and matrix rates, as an entry of the hardware table.

The best of several runs counts: a ceiling is asked for, and other work on the machine only lowers
what is seen. Sizes are beyond the caches.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil
import torch

from penstock.sizing.hardware import Device, Price, Rates

BANDWIDTH_BYTES = {"cpu": 256 * 2**20, "cuda": 2 * 2**30}
MATRIX = {"cpu": 1024, "cuda": 8192}
RUNS = 5


def measure(name: str, device: torch.device, note: str, runs: int = RUNS) -> Device:
    """Read bandwidth and arithmetic of a CPU or a CUDA device; takes seconds.

    note: machine and date, for the entry's source. Its price is left open.
    """
    kind = "gpu" if device.type == "cuda" else "cpu"
    rates = Rates(
        fp32=matrix_rate(torch.float32, device, runs),
        bf16=matrix_rate(torch.bfloat16, device, runs),
        fp16=matrix_rate(torch.float16, device, runs) if kind == "gpu" else None,
        int8=integer_rate(device, runs),
    )
    return Device(
        name,
        kind,
        float(memory_bytes(device)),
        read_bandwidth(device, runs),
        rates,
        Price(source="not measured", date="-"),
        note,
        # What is measured is reached already; the rest of a step still costs.
        compute_share=0.7,
        bandwidth_share=0.8,
        step_s=0.0015 if kind == "gpu" else 0.0005,
    )


def memory_bytes(device: torch.device) -> int:
    """All memory of the device, free or not."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total)


def read_bandwidth(device: torch.device, runs: int = RUNS) -> float:
    """Bytes/s of summing a tensor that no cache holds."""
    count = BANDWIDTH_BYTES[device.type] // 4
    data = torch.ones(count, dtype=torch.float32, device=device)
    return 4 * count / _best(lambda: data.sum(), device, runs)


def matrix_rate(dtype: torch.dtype, device: torch.device, runs: int = RUNS) -> float:
    """FLOP/s of a square matrix product in that dtype."""
    size = MATRIX[device.type]
    a = torch.ones(size, size, dtype=dtype, device=device)
    b = torch.ones(size, size, dtype=dtype, device=device)
    return 2 * size**3 / _best(lambda: a @ b, device, runs)


def integer_rate(device: torch.device, runs: int = RUNS) -> float | None:
    """Operations/s of an int8 product with int32 sums; None where torch has none here."""
    size = MATRIX[device.type]
    a = torch.ones(size, size, dtype=torch.int8, device=device)
    try:
        return 2 * size**3 / _best(lambda: torch._int_mm(a, a), device, runs)
    except RuntimeError:
        return None


def _best(work: Callable[[], object], device: torch.device, runs: int) -> float:
    """Least seconds of `runs` runs after one that warms up."""
    seconds = []
    for _ in range(runs + 1):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])
