"""The prefix cache, on beside off: a load that shares a prefix and one that shares nothing.

    python -m benchmarks.engine.prefix [--pairs 5] [--tiny]

shared    32 requests at once whose first 2,000 tokens are equal and were never seen before
unshared  32 requests at once without anything in common: what the cache costs when it cannot help

Two engines in one process, in turns, on the same prompts. Throughput is output tokens/s from the
first request sent to the last token; TTFT is the median over the 32.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.harness import (
    Driver,
    arguments,
    interleaved,
    median_ratio,
    random_ids,
    save,
    verdict,
)
from benchmarks.make_checkpoint import checkpoint
from penstock.report.stats import median

SHARED_BYTES = 2 * 2**30
"""Enough for all 32 without sharing, so that neither engine preempts."""
UNSHARED_BYTES = 300 * 2**20
"""Enough for all 32 once, so that a few bursts use every block: afterwards the cache evicts, as it
does in a server that has run for a while, and no memory is touched for the first time (which costs
more than the work itself where a hypervisor has to find the page)."""
WARM_BURSTS = 3


def burst(driver: Driver, prompts: list[list[int]], output_len: int) -> dict[str, float]:
    traces = [driver.add(prompt, output_len) for prompt in prompts]
    driver.run()
    duration_s = max(trace.tokens_s[-1] for trace in traces) - traces[0].sent_s
    assert driver.steps[-1].preemptions == 0
    return {
        "tok_per_s": len(traces) * output_len / duration_s,
        "ttft_ms": median([trace.ttft_s for trace in traces]) * 1e3,
        "cached_tokens": sum(trace.cached_tokens for trace in traces),
    }


def compare(given: Any, drivers: tuple[Driver, Driver], name: str, shared: int) -> dict[str, Any]:
    """Both engines on the same prompts, new in every pair."""
    on, off = drivers

    def prompts(index: int) -> list[list[int]]:
        draw, vocab_size = f"{name}/{index}", on.info.vocab_size
        prefix = random_ids(shared, vocab_size, draw)
        own = given.own_len if shared else given.unshared_len
        return [prefix + random_ids(own, vocab_size, f"{draw}/{n}") for n in range(given.requests)]

    with_cache, without = interleaved(
        given.pairs,
        lambda index: burst(on, prompts(index), given.output_len),
        lambda index: burst(off, prompts(index), given.output_len),
    )
    ratios = {
        key: median_ratio([row[key] for row in with_cache], [row[key] for row in without])
        for key in ("tok_per_s", "ttft_ms")
    }
    for label, rows in (("on", with_cache), ("off", without)):
        cells = [median([row[key] for row in rows]) for key in rows[0]]
        print(f"{name:10}{label:6}{cells[0]:12.1f}{cells[1]:12.1f}{cells[2]:12.0f}")
    return {"on": with_cache, "off": without, "ratios": ratios}


def engines(folder: Path, cache_bytes: int) -> tuple[Driver, Driver]:
    """With and without a prefix cache."""
    on, off = (
        Driver(
            folder,
            max_model_len=4096,
            enable_prefix_caching=caching,
            kv_cache_memory_bytes=cache_bytes,
        )
        for caching in (True, False)
    )
    return on, off


def warm(driver: Driver, requests: int, prompt_len: int) -> None:
    for index in range(WARM_BURSTS):
        draws = [f"warm/{index}/{n}" for n in range(requests)]
        size = driver.info.vocab_size
        burst(driver, [random_ids(prompt_len, size, draw) for draw in draws], 4)


def main() -> None:
    given = arguments(
        __doc__ or "", requests=32, prefix_len=2000, own_len=32, unshared_len=256, output_len=32
    )
    folder = checkpoint("tiny" if given.tiny else "l135")
    pair = engines(folder, SHARED_BYTES)
    for driver in pair:
        warm(driver, 1, 64)
    print(f"{'load':10}{'cache':6}{'tok/s':>12}{'TTFT ms':>12}{'cached':>12}")
    shared = compare(given, pair, "shared", given.prefix_len)
    pair = engines(folder, UNSHARED_BYTES)
    for driver in pair:
        warm(driver, given.requests, given.unshared_len)
    unshared = compare(given, pair, "unshared", 0)
    gain, wait = shared["ratios"]["tok_per_s"], shared["ratios"]["ttft_ms"]
    cost = unshared["ratios"]["tok_per_s"]
    print(verdict("shared: throughput, on / off", gain, ">= 2", gain >= 2))
    print(verdict("shared: TTFT, on / off", wait, "<= 0.5", wait <= 0.5))
    print(verdict("unshared: throughput, on / off", cost, ">= 0.97", cost >= 0.97))
    save("prefix", given, {"shared": shared, "unshared": unshared})


if __name__ == "__main__":
    main()
