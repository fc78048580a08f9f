"""The prefix cache, on beside off: a load that shares a prefix and one that shares nothing.

    python -m benchmarks.engine.prefix [--pairs 5] [--tiny]

shared    32 requests at once whose first 2,000 tokens are equal and were never seen before
unshared  32 requests at once without anything in common: what the cache costs when it cannot help

Two engines in one process, in turns, on the same prompts. Throughput is output tokens/s from the
first request sent to the last token; TTFT is the median over the 32.
"""

from __future__ import annotations

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

KV_CACHE_BYTES = 2 * 2**30
"""Enough for all 32 without sharing, so that neither engine preempts."""


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


def main() -> None:
    given = arguments(
        __doc__ or "", requests=32, prefix_len=2000, own_len=32, unshared_len=256, output_len=32
    )
    folder = checkpoint("tiny" if given.tiny else "l135")
    on, off = (
        Driver(
            folder,
            max_model_len=4096,
            enable_prefix_caching=caching,
            kv_cache_memory_bytes=KV_CACHE_BYTES,
        )
        for caching in (True, False)
    )
    for driver in (on, off):
        burst(driver, [random_ids(64, driver.info.vocab_size, "warm")], 4)
    print(f"{'load':10}{'cache':6}{'tok/s':>12}{'TTFT ms':>12}{'cached':>12}")
    shared = compare(given, (on, off), "shared", given.prefix_len)
    unshared = compare(given, (on, off), "unshared", 0)
    gain, wait = shared["ratios"]["tok_per_s"], shared["ratios"]["ttft_ms"]
    cost = unshared["ratios"]["tok_per_s"]
    print(verdict("shared: throughput, on / off", gain, ">= 2", gain >= 2))
    print(verdict("shared: TTFT, on / off", wait, "<= 0.5", wait <= 0.5))
    print(verdict("unshared: throughput, on / off", cost, ">= 0.97", cost >= 0.97))
    save("prefix", given, {"shared": shared, "unshared": unshared})


if __name__ == "__main__":
    main()
