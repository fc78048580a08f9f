"""The router's decision over 16 engines for a prompt of 4k tokens; hashing is reported apart.

    python -m benchmarks.engine.router [--decisions 2000] [--engines 16] [--prompt-len 4096]

Engines hold prompts of other users, prefixes of several depths of the one asked for, and have
different loads. Figures are medians over decisions: `pick` alone (filters, scorers, picker), what
is noted once the request is sent, and the hashing of the prompt's blocks before.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from benchmarks.harness import arguments, save, verdict
from penstock.core import prefix
from penstock.core.router import Ask, EngineView, Router
from penstock.report.stats import median, percentile

BLOCK_SIZE = 16
BOUND_US = 50.0


def timed(function: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    """(result, microseconds)."""
    began = time.perf_counter_ns()
    result = function(*args)
    return result, (time.perf_counter_ns() - began) / 1e3


def hashed(tokens: list[int]) -> list[bytes]:
    hashes: list[bytes] = []
    prefix.extend(hashes, prefix.root("model", ""), tokens, BLOCK_SIZE)
    return hashes


def main() -> None:
    given = arguments(__doc__ or "", decisions=2000, engines=16, prompt_len=4096)
    count = 100 if given.tiny else given.decisions
    draw = random.Random(0)
    router = Router()
    prompts = [[draw.randrange(50_000) for _ in range(given.prompt_len)] for _ in range(64)]
    for n, prompt in enumerate(prompts):
        for _ in range(4):
            depth = draw.randrange(given.prompt_len // BLOCK_SIZE + 1)
            router.index.stored((n + draw.randrange(8)) % given.engines, hashed(prompt)[:depth])
    picks, notes, hashing = [], [], []
    for _ in range(count):
        prompt = draw.choice(prompts)
        hashes, us = timed(hashed, prompt)
        hashing.append(us)
        now = time.monotonic()
        views = [
            EngineView(i, now, draw.randrange(20), draw.randrange(4000))
            for i in range(given.engines)
        ]
        ask = Ask(len(prompt), hashes, f"session {draw.randrange(500)}")
        decision, us = timed(router.pick, ask, views, now)
        picks.append(us)
        notes.append(timed(router.index.sent, decision.engine, hashes)[1])
        router.index.settled(decision.engine, hashes)
    rows = {"pick": picks, "note": notes, "hash": hashing}
    print(f"{'us':6}{'p50':>10}{'p99':>10}")
    for name, row in rows.items():
        print(f"{name:6}{median(row):10.1f}{percentile(row, 99):10.1f}")
    p50 = median(picks)
    print(verdict("router decision p50, us", p50, f"<= {BOUND_US:.0f}", p50 <= BOUND_US))
    figures = {name: {"p50": median(row), "p99": percentile(row, 99)} for name, row in rows.items()}
    save("router", given, {"us": figures})


if __name__ == "__main__":
    main()
