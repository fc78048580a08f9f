"""A long prompt enters running streams: what the streams feel, by token budget of a step.

    python -m benchmarks.engine.chunks [--pairs 5] [--tiny]

8 streams decode; then a prompt of 8,192 tokens comes in. ITL: gaps between tokens of the streams
from then until the prompt's first token. "step": the gaps between steps while a prompt of the same
length is read alone with the same budget, measured in the same turn. Chunks late in a prompt cost
more than early ones (their attention is longer), so like percentiles are compared: the claim is
that a stream waits for one step and never for more. "idle": a decode step of the 8 streams before
the prompt came. "default": the engine's own choice, which has long steps for a prompt alone and
short ones beside streams; it is held to at most five idle decode steps.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.harness import Driver, Trace, arguments, random_ids, save, verdict
from benchmarks.make_checkpoint import checkpoint
from penstock.engine.build import CPU_MIXED_PREFILL
from penstock.report.stats import median, percentile

IDLE_STEPS = 24
"""Decode steps before the prompt comes; the first four are not counted."""


DEFAULT = "default"
BUDGETS: dict[str, int | None] = {"64": 64, "256": 256, "1024": 1024, DEFAULT: None}


def enter(driver: Driver, given: Any, least: int, index: int) -> dict[str, float]:
    """One turn: the prompt among the streams, then a prompt alone. Milliseconds.
    least: prompt tokens in a step, so that the streams outlast the prompt."""
    vocab_size = driver.info.vocab_size
    chunks = -(-given.prompt_len // least)
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
    drivers = {name: make_driver(folder, budget, 16384) for name, budget in BUDGETS.items()}
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in BUDGETS}
    for index in range(given.pairs):
        for name in BUDGETS if index % 2 else reversed(BUDGETS):
            least = (BUDGETS[name] or CPU_MIXED_PREFILL + given.streams) - given.streams
            turns[name].append(enter(drivers[name], given, least, index))
    columns = list(turns[DEFAULT][0])
    print(f"{'budget':>8}" + "".join(f"{name:>12}" for name in columns) + "   (ms)")
    figures: dict[str, Any] = {}
    for budget, rows in turns.items():
        middle = {name: median([row[name] for row in rows]) for name in columns}
        figures[budget] = {
            "median_ms": middle,
            "p99_ratio": median([row["ITL p99"] / row["step p99"] for row in rows]),
            "step_over_idle": median([row["ITL p50"] / row["idle p50"] for row in rows]),
            "turns_ms": rows,
        }
        print(f"{budget:>8}" + "".join(f"{middle[name]:12.1f}" for name in columns))
    for budget, figure in figures.items():
        ratio = figure["p99_ratio"]
        print(verdict(f"budget {budget}: ITL p99 / step p99", ratio, "<= 1.3", ratio <= 1.3))
    heavy = figures[DEFAULT]["step_over_idle"]
    print(verdict("default budget: step / idle decode step", heavy, "<= 5", heavy <= 5))
    save("chunks", given, {"budgets": figures})


if __name__ == "__main__":
    main()
