"""Two engines beside one: the same unshared load on the same cores.

    python -m benchmarks.engine.data_parallel [--pairs 3] [--cores 2] [--tiny]

half    one engine with half of the cores: what two of them should double
whole   one engine with all cores
two     two engines with half of the cores each, behind the router

All three are processes that stay up; they work in turns, on prompts that share nothing. Throughput
is output tokens/s from the first request sent to the last token.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.harness import arguments, median_ratio, random_ids, save, verdict
from benchmarks.make_checkpoint import checkpoint
from penstock.config import Config, EngineConfig, ModelConfig
from penstock.core.request import Sampling, Submission
from penstock.engine.group import EngineGroup
from penstock.report.stats import median

KV_CACHE_BYTES = 512 * 2**20
"""Of each engine."""


def group(folder: Path, engines: int, threads: int) -> EngineGroup:
    model = ModelConfig(model=str(folder), max_model_len=2048)
    engine = replace(
        EngineConfig(),
        data_parallel_size=engines,
        num_threads=threads,
        kv_cache_memory_bytes=KV_CACHE_BYTES,
    )
    return EngineGroup(Config(model=model, engine=engine).check())


async def burst(client: EngineGroup, prompts: list[list[int]], output_len: int) -> float:
    """Output tokens/s of all prompts sent at once."""

    async def read(name: str, prompt: list[int]) -> int:
        sampling = Sampling(temperature=0.0, max_tokens=output_len)
        (box,) = client.submit([Submission(name, prompt, sampling)])
        return sum([len(delta.tokens) async for delta in box])

    began = time.perf_counter()
    counts = await asyncio.gather(*(read(str(i), prompt) for i, prompt in enumerate(prompts)))
    assert counts == [output_len] * len(prompts)
    return sum(counts) / (time.perf_counter() - began)


async def measure(given: Any) -> dict[str, list[float]]:
    folder = checkpoint("tiny" if given.tiny else "l135")
    half = max(1, given.cores // 2)
    clients = {
        "half": group(folder, 1, half),
        "whole": group(folder, 1, given.cores),
        "two": group(folder, 2, half),
    }
    rates: dict[str, list[float]] = {name: [] for name in clients}
    try:
        infos = [await client.start() for client in clients.values()]
        size = infos[0].vocab_size
        for turn in range(-1, given.pairs):  # the first one warms up
            names = list(clients)[:: 1 if turn % 2 else -1]
            for name in names:
                draws = (f"{turn}/{name}/{n}" for n in range(given.requests))
                prompts = [random_ids(given.prompt_len, size, draw) for draw in draws]
                rate = await burst(clients[name], prompts, given.output_len)
                if turn >= 0:
                    rates[name].append(rate)
    finally:
        await asyncio.gather(*(client.close() for client in clients.values()))
    return rates


def main() -> None:
    given = arguments(__doc__ or "", cores=2, requests=32, prompt_len=256, output_len=64)
    rates = asyncio.run(measure(given))
    print(f"{'':8}{'tok/s':>10}")
    for name, row in rates.items():
        print(f"{name:8}{median(row):10.1f}")
    scale = median_ratio(rates["two"], rates["half"])
    beside = median_ratio(rates["two"], rates["whole"])
    print(verdict("two engines / one engine with as many threads", scale, ">= 1.8", scale >= 1.8))
    print(verdict("two engines / one engine with all cores", beside, "reported", True))
    save("data_parallel", given, {"tok_per_s": rates, "scale": scale, "beside": beside})


if __name__ == "__main__":
    main()
