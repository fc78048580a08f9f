"""What a grammar costs: the time of a mask, and of a step of 8 streams with and without one.

    python -m benchmarks.engine.grammar [--shape q06] [--threads N] [--streams 8] [--output-len 96]

A mask's time is that of accepting a token and computing the next mask, in the thread that does
both. `step`: the median step of the same requests, free or held to a JSON schema, interleaved. The
streams are hot (temperature 1), so that what they write is unlike.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

from benchmarks.harness import Driver, arguments, interleaved, save, verdict
from benchmarks.make_checkpoint import checkpoint
from penstock.engine.constraints import Constraint
from penstock.grammar import spec
from penstock.report.stats import median, percentile

ITEM = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "price": {"type": "number"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "kind": {"enum": ["book", "game", "tool"]},
    },
    "required": ["name", "price", "tags", "kind"],
    "additionalProperties": False,
}
GRAMMAR = spec.json_schema({"type": "array", "items": ITEM, "minItems": 50}).text()


class Timed:
    """Notes how long each accepted token and its mask take."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._accept = Constraint.accept

    def __enter__(self) -> Timed:
        def accept(constraint: Constraint, token: int) -> None:
            began = perf_counter()
            self._accept(constraint, token)
            self.seconds.append(perf_counter() - began)

        Constraint.accept = accept  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        Constraint.accept = self._accept  # type: ignore[method-assign]


def step_s(driver: Driver, streams: int, output_len: int, grammar: str) -> float:
    """Median seconds of a step in which all streams decode."""
    hot = {"temperature": 1.0, "stop_ids": driver.info.eos_ids, "min_tokens": output_len}
    for seed in range(streams):
        driver.add(range(10, 74), output_len, grammar=grammar, seed=seed, **hot)
    first = len(driver.steps)
    while driver.engine.scheduler.has_work:
        driver.engine.step()
    steps = [s.step_s for s in driver.steps[first:] if s.decode_tokens == streams]
    return median(steps)


def compile_it(driver: Driver) -> float:
    """Seconds until the grammar is there."""
    began = perf_counter()
    grammars: Any = driver.engine._grammars
    grammars.compiled(GRAMMAR)
    return perf_counter() - began


def main() -> None:
    given = arguments(__doc__ or "", shape="q06", streams=8, output_len=96)
    path = checkpoint("tiny" if given.tiny else given.shape)
    driver = Driver(path, 1024, max_num_seqs=given.streams, num_threads=given.threads)
    print(f"first grammar, with the vocabulary: {compile_it(driver) * 1e3:.0f} ms")
    with Timed() as timed:
        for grammar in ("", GRAMMAR):
            step_s(driver, given.streams, 8, grammar)
        timed.seconds.clear()
        free, held = interleaved(
            given.pairs,
            lambda _: step_s(driver, given.streams, given.output_len, ""),
            lambda _: step_s(driver, given.streams, given.output_len, GRAMMAR),
        )
    masks = [percentile(timed.seconds, q) * 1e6 for q in (50, 99)]
    overhead = median([h / f for h, f in zip(held, free, strict=True)]) - 1
    print(f"step: free {median(free) * 1e3:.2f} ms, held {median(held) * 1e3:.2f} ms")
    print(
        f"mask: p50 {masks[0]:.0f} µs, p99 {masks[1]:.0f} µs a token, {len(timed.seconds)} tokens"
    )
    print(verdict("mask p50, µs", masks[0], "<= 100", masks[0] <= 100))
    print(verdict("step overhead", overhead, "< 0.05", overhead < 0.05))
    figures = {"free_s": free, "held_s": held, "mask_us_p50_p99": masks, "overhead": overhead}
    save("grammar", given, figures)


if __name__ == "__main__":
    main()
