"""A long prompt enters running streams: what the streams feel, by token budget of a step.

    python -m benchmarks.engine.chunks [--pairs 5] [--tiny]

8 streams decode; then a prompt of 8,192 tokens comes in. ITL: gaps between tokens of the streams
from then until the prompt's first token. "step": the gaps between steps while a prompt of the same
length is read alone with the same budget, measured in the same turn. Chunks late in a prompt cost
more than early ones (their attention is longer), so like percentiles are compared: the claim is
that a stream waits for one step and never for more. "idle": a decode step of the 8 streams before
the prompt came.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.harness import Driver, Trace, arguments, random_ids, save, verdict
from benchmarks.make_checkpoint import checkpoint
from penstock.report.stats import median, percentile

IDLE_STEPS = 24
"""Decode steps before the prompt comes; the first four are not counted."""


def enter(driver: Driver, given: Any, budget: int, index: int) -> dict[str, float]:
    """One turn: the prompt among the streams, then a prompt alone. Milliseconds."""
    vocab_size = driver.info.vocab_size
    chunks = -(-given.prompt_len // (budget - given.streams))
    streams = [
        driver.add(random_ids(32, vocab_size, f"{index}/{n}"), IDLE_STEPS + chunks + 64)
        for n in range(given.streams)
    ]
    while min(len(stream.tokens_s) for stream in streams) < IDLE_STEPS:
        driver.step()
    idle = [gap for stream in streams for gap in gaps(stream.tokens_s[4:])]
    lengths = [len(stream.tokens_s) for stream in streams]
    prompt = driver.add(random_ids(given.prompt_len, vocab_size, f"{index}/prompt"), 1)
    until_first(driver, prompt)
    assert all(stream.reason is None for stream in streams), "a stream ended too early"
    itl = [
        gap
        for stream, before in zip(streams, lengths, strict=True)
        for gap in gaps(stream.tokens_s[before - 1 :])
    ]
    driver.run()
    first = len(driver.steps)
    alone = driver.add(random_ids(given.prompt_len, vocab_size, f"{index}/alone"), 1)
    until_first(driver, alone)
    steps = gaps([alone.sent_s, *(stats.at for stats in driver.steps[first:])])
    driver.run()
    return {
        "idle p50": median(idle) * 1e3,
        "step p50": median(steps) * 1e3,
        "step p99": percentile(steps, 99) * 1e3,
        "ITL p50": median(itl) * 1e3,
        "ITL p99": percentile(itl, 99) * 1e3,
        "TTFT": prompt.ttft_s * 1e3,
        "TTFT alone": alone.ttft_s * 1e3,
    }


def gaps(times: list[float]) -> list[float]:
    return [later - sooner for sooner, later in pairwise(times)]


def until_first(driver: Driver, trace: Trace) -> None:
    while not trace.tokens_s:
        driver.step()


def make_driver(folder: Path, budget: int | None, context: int) -> Driver:
    return Driver(
        folder,
        max_model_len=context,
        max_num_batched_tokens=budget,
        max_num_seqs=min(64, budget or 64),
        enable_prefix_caching=False,
        kv_cache_memory_bytes=2**30,
    )


def main() -> None:
    given = arguments(__doc__ or "", prompt_len=8192, streams=8)
    folder = checkpoint("tiny" if given.tiny else "l135")
    default = make_driver(folder, None, 16384).info.max_num_batched_tokens
    budgets = sorted({64, 256, 1024, default})
    drivers = {budget: make_driver(folder, budget, 16384) for budget in budgets}
    turns: dict[int, list[dict[str, float]]] = {budget: [] for budget in budgets}
    for index in range(given.pairs):
        for budget in budgets if index % 2 else reversed(budgets):
            turns[budget].append(enter(drivers[budget], given, budget, index))
    names = list(turns[default][0])
    print(f"{'budget':>8}" + "".join(f"{name:>12}" for name in names) + f"{'p99 ratio':>12}   (ms)")
    figures: dict[str, Any] = {}
    for budget, rows in turns.items():
        middle = {name: median([row[name] for row in rows]) for name in names}
        ratio = median([row["ITL p99"] / row["step p99"] for row in rows])
        figures[str(budget)] = {"median_ms": middle, "p99_ratio": ratio, "turns_ms": rows}
        cells = "".join(f"{middle[name]:12.1f}" for name in names)
        print(f"{budget:8}{cells}{ratio:12.2f}{'   default' if budget == default else ''}")
    for budget in budgets:
        ratio = figures[str(budget)]["p99_ratio"]
        print(verdict(f"budget {budget}: ITL p99 / step p99", ratio, "<= 1.3", ratio <= 1.3))
    heavy = median([row["ITL p50"] / row["idle p50"] for row in turns[default]])
    print(verdict("default budget: step / idle decode step", heavy, "<= 5", heavy <= 5))
    save("chunks", given, {"default": default, "step_over_idle": heavy, "budgets": figures})


if __name__ == "__main__":
    main()
