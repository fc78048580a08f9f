"""What the log costs: CPU time of its code and thread over the run's, and the run's time with it.

    python -m benchmarks.engine.logging [--pairs 20] [--requests 64] [--concurrency 16]

The same traffic (prompts of `--prompt-len` ids, `--output-len` tokens each) through the facade and
an engine in this process, with and without `log_dir`, in interleaved pairs. Two figures: the log's
own CPU (its thread, and what the serving thread spends in its methods, measured by calling them
again beside the run) over the run's CPU; and the ratio of the runs' CPU times, with a 95 %
confidence interval over pairs. Goal: below 2 %.
"""

from __future__ import annotations

import asyncio
import math
import tempfile
import time
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmarks.harness import arguments, interleaved, random_ids, save, verdict
from benchmarks.make_checkpoint import checkpoint
from penstock import SamplingParams
from penstock.llm import AsyncLLM
from penstock.llm.offline import config_of, start_in_process

GOAL = 0.02


class Timed:
    """A log whose calls are timed on the serving thread."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self.spent_s = 0.0

    def __call__(self, *args: Any) -> None:
        self._time(self._log, *args)

    def opened(self, request: Any) -> None:
        self._time(self._log.opened, request)

    def closed(self, request: Any) -> None:
        self._time(self._log.closed, request)

    def _time(self, call: Any, *args: Any) -> None:
        began = time.thread_time()
        call(*args)
        self.spent_s += time.thread_time() - began

    def close(self) -> None:
        self._log.close()

    @property
    def cpu_s(self) -> float:
        return float(self._log.cpu_s) + self.spent_s


async def serve(llm: AsyncLLM, given: Any) -> tuple[float, float]:
    """(CPU seconds, wall seconds) of all requests."""
    gate = asyncio.Semaphore(given.concurrency)

    async def one(number: int) -> None:
        async with gate:
            ids = random_ids(given.prompt_len, llm.info.vocab_size, number)
            params = SamplingParams(max_tokens=given.output_len, ignore_eos=True)
            await (await llm.generate(ids, params)).result()

    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(given.requests)))
    return time.process_time() - cpu, time.perf_counter() - wall


def run(given: Any, model: str, logged: bool) -> dict[str, float]:
    async def work(folder: str) -> dict[str, float]:
        options: dict[str, Any] = {"log_dir": folder} if logged else {}
        config = config_of(
            model=model, max_num_seqs=given.concurrency, num_threads=given.threads, **options
        )
        llm = await start_in_process(config)
        await (await llm.generate([1, 2, 3], SamplingParams(max_tokens=2))).result()
        timed = None
        if llm.log is not None:
            timed = Timed(llm.log)
            llm.client._boxes._sinks[:] = [timed]  # type: ignore[attr-defined]
            llm.log = timed  # type: ignore[assignment]
        before = timed.cpu_s if timed else 0.0
        cpu, wall = await serve(llm, given)
        await llm.close()
        own = timed.cpu_s - before if timed else 0.0
        return {"cpu_s": cpu, "wall_s": wall, "log_s": own}

    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(work(str(Path(folder) / "logs")))


def interval(values: list[float]) -> tuple[float, float]:
    """Half-width of a 95 % confidence interval of the mean (normal), and the mean."""
    spread = stdev(values) if len(values) > 1 else 0.0
    return 1.96 * spread / math.sqrt(len(values)), fmean(values)


def main() -> None:
    given = arguments(__doc__ or "", requests=64, concurrency=16, prompt_len=128, output_len=128)
    model = str(checkpoint("tiny" if given.tiny else "l135"))
    plain, logged = interleaved(
        given.pairs, lambda index: run(given, model, False), lambda index: run(given, model, True)
    )
    own = [each["log_s"] / each["cpu_s"] for each in logged]
    ratios = [a["cpu_s"] / b["cpu_s"] for a, b in zip(logged, plain, strict=True)]
    walls = [a["wall_s"] / b["wall_s"] for a, b in zip(logged, plain, strict=True)]
    for name, values in (("CPU with / without", ratios), ("time with / without", walls)):
        half, mean = interval(values)
        print(f"{name}: {mean:.4f} ± {half:.4f} over {len(values)} pairs")
    half, mean = interval(own)
    print(f"the log's own CPU: {100 * mean:.2f} % ± {100 * half:.2f} % of the run's")
    save("logging", given, {"plain": plain, "logged": logged})
    print(verdict("the log's share of CPU, percent", 100 * mean, "2", mean + half < GOAL))


if __name__ == "__main__":
    main()
