"""The sum over ranks: through shared memory, and through gloo in two ways.

    python -m benchmarks.engine.allreduce [--ranks 2] [--rounds 50] [--pairs 5]

`gathered` is our transport over gloo, which gathers and adds in the order of ranks; `gloo` is
gloo's own all-reduce, whose order depends on a value's place in the tensor. Sizes are those of
hidden states [tokens, width] in float32. Figures are medians of rank 0, in microseconds; with
fewer cores than ranks they are those of the operating system's scheduler.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from time import perf_counter

import torch
from torch import Tensor

from benchmarks.harness import arguments, median_ratio, save, verdict
from penstock.parallel.distributed import Distributed
from penstock.parallel.meeting import CONNECT_S
from penstock.parallel.shared import SharedMemory, segment_bytes, unnamed_file
from penstock.report.stats import median

CPU = torch.device("cpu")
SIZES = (576, 4096, 16 * 576, 64 * 2048, 256 * 576, 256 * 2048, 512 * 4096)
"""float32 values: from one token of a small model to a chunk of a large one"""


def rank(shared: int, store: int, own: int, ranks: int, rounds: int, pairs: int) -> None:
    """One rank's part; rank 0 prints a line of seconds for each size, way and pair."""
    torch.set_num_threads(1)
    gloo = Distributed(store, own, ranks, CPU, CONNECT_S)
    memory = SharedMemory(shared, own, ranks, lambda: False)
    ways: dict[str, Callable[[Tensor], object]] = {
        "shared": memory.all_reduce,
        "gathered": gloo.all_reduce,
        "gloo": lambda x: gloo._group.allreduce([x]).wait(),
    }
    for size in SIZES:
        for pair in range(pairs):
            for way in list(ways)[:: 1 if pair % 2 else -1]:
                seconds = _measure(ways[way], torch.ones(size), max(3, rounds * 4096 // size))
                if own == 0:
                    print(size, way, seconds, flush=True)


def _measure(way: Callable[[Tensor], object], x: Tensor, rounds: int) -> float:
    found = []
    for _ in range(min(rounds, 200)):
        x.fill_(1.0)
        began = perf_counter()
        way(x)
        found.append(perf_counter() - began)
    return median(found)


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] == "rank":
        return rank(*map(int, sys.argv[2:]))
    given = arguments(__doc__ or "", ranks=2, rounds=50)
    rounds, pairs = (2, 1) if given.tiny else (given.rounds, given.pairs)
    fds = (unnamed_file(segment_bytes(given.ranks)), unnamed_file(0))
    command = [sys.executable, "-m", "benchmarks.engine.allreduce", "rank", *map(str, fds)]
    processes = [
        subprocess.Popen(
            [*command, str(own), str(given.ranks), str(rounds), str(pairs)],
            pass_fds=fds,
            stdout=subprocess.PIPE,
            text=True,
        )
        for own in range(given.ranks)
    ]
    lines = processes[0].communicate()[0].splitlines()
    assert all(process.wait() == 0 for process in processes), "a rank failed"
    figures: dict[int, dict[str, list[float]]] = {}
    for line in lines:
        size, way, seconds = line.split()
        figures.setdefault(int(size), {}).setdefault(way, []).append(float(seconds))
    print(f"{given.ranks} ranks, microseconds")
    print(f"{'bytes':>10} {'shared':>9} {'gathered':>9} {'gloo':>9}")
    for size, by in figures.items():
        cells = [f"{median(by[way]) * 1e6:9.0f}" for way in ("shared", "gathered", "gloo")]
        print(f"{size * 4:>10}", *cells)
    worst = max(median_ratio(by["shared"], by["gloo"]) for by in figures.values())
    print(verdict("shared memory / gloo's own, worst size", worst, "<= 1", worst <= 1))
    shown = {str(size): by for size, by in figures.items()}
    save("allreduce", given, {"seconds": shown, "worst_ratio": worst})


if __name__ == "__main__":
    main()
