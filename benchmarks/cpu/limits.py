"""What the machine can do just now: read bandwidth and matrix rates, by torch, as an engine that
the run asks in its turn."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from time import perf_counter
from typing import Any

from benchmarks.cpu.protocol import Run, command_line, serve
from benchmarks.cpu.works import Request

ROWS, SIZE = 512, 4096
"""of the matrix products: beyond every cache but the last"""
REPEATS = 5


def start(buffer_bytes: int, threads: int) -> tuple[Run, dict[str, Any]]:
    """buffer_bytes: of weights, whose reading is the limit of decoding."""
    import torch

    torch.set_num_threads(threads)
    buffer = torch.ones(buffer_bytes // 4)
    a, b = torch.ones(ROWS, SIZE).bfloat16(), torch.ones(SIZE, SIZE).bfloat16()
    c, d = torch.ones(ROWS, SIZE).to(torch.int8), torch.ones(SIZE, SIZE).to(torch.int8)

    def run(requests: list[Request]) -> dict[str, float]:
        operations = 2 * ROWS * SIZE * SIZE
        return {
            "bandwidth": buffer.nbytes / median_s(buffer.sum),
            "bf16": operations / median_s(lambda: a @ b),
            "int8": operations / median_s(lambda: torch._int_mm(c, d)),
            "tokens": 0,
        }

    run([])
    return run, {"version": torch.__version__}


def median_s(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(REPEATS):
        began = perf_counter()
        work()
        seconds.append(perf_counter() - began)
    return sorted(seconds)[REPEATS // 2]


def main() -> None:
    given = command_line(argparse.ArgumentParser())
    serve(lambda: start(int(given.model), given.threads))


if __name__ == "__main__":
    main()
