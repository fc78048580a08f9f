"""A long prompt over context-parallel ranks: the time to its first token, and what is exchanged.

    python -m benchmarks.engine.context_parallel [--parts 2] [--prompt-len 8192] [--pairs 3]

one     a process with one thread
parts   --parts processes with one thread each, which share every chunk of the prompt
wide    one process with as many threads as there are parts: what the same cores do without

"speed" is the time of one over that of parts; its bound is the cores. Beside it stand the bytes
that the ranks tell each other for each prompt token (keys and values of all layers, once a rank)
and the rate of decoding, which every rank does alike. It needs a core a part with nothing else
running.
"""

from __future__ import annotations

from collections.abc import Callable

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
from penstock.engine.weights import read_config, read_plan
from penstock.layers.decoder import DecoderPlan
from penstock.report.stats import median

CHUNK = 2048
DECODED = 32


def first_token(driver: Driver, length: int, seed: int) -> tuple[float, float]:
    """(seconds to the first token, seconds a token after it) of one prompt."""
    trace = driver.add(random_ids(length, driver.info.vocab_size, (length, seed)), DECODED)
    driver.run()
    times = trace.tokens_s
    return trace.ttft_s, (times[-1] - times[0]) / (len(times) - 1)


def main() -> None:
    given = arguments(__doc__ or "", parts=2, prompt_len=8192)
    folder = checkpoint("tiny" if given.tiny else "l135")
    plan = read_plan(read_config(folder), folder / "config.json")
    assert isinstance(plan, DecoderPlan)
    kv_bytes = len(plan.windows) * 2 * plan.num_kv_heads * plan.head_dim * 4
    length = min(given.prompt_len, 512) if given.tiny else given.prompt_len
    common = {"max_num_seqs": 1, "max_num_batched_tokens": CHUNK, "enable_prefix_caching": False}
    context = length + DECODED
    parts = Driver(
        folder, context, num_threads=1, prefill_context_parallel_size=given.parts, **common
    )
    one = Driver(folder, context, num_threads=1, **common)
    wide = Driver(folder, context, num_threads=given.parts, **common)

    def timed(driver: Driver) -> Callable[[int], tuple[float, float]]:
        return lambda seed: first_token(driver, length, seed)

    for driver in (parts, one, wide):
        timed(driver)(-1)
    shared, alone = interleaved(given.pairs, timed(parts), timed(one))
    again, threads = interleaved(given.pairs, timed(parts), timed(wide))
    for driver in (parts, one, wide):
        driver.close()
    speed = median_ratio([ttft for ttft, _ in alone], [ttft for ttft, _ in shared])
    beside = median_ratio([ttft for ttft, _ in threads], [ttft for ttft, _ in again])
    decoding = median_ratio([each for _, each in alone], [each for _, each in shared])
    print(
        f"TTFT of {length} tokens: one {median([t for t, _ in alone]):.2f} s, {given.parts} parts "
        f"{median([t for t, _ in shared]):.2f} s; each rank tells {kv_bytes / given.parts:.0f} "
        "bytes a prompt token"
    )
    print(verdict("speed of prefill beside one thread", speed, f"> 1, <= {given.parts}", speed > 1))
    print(verdict("the same beside as many threads", beside, "reported", True))
    print(verdict("speed of decoding beside one thread", decoding, "reported", True))
    figures = {"speed": speed, "beside_threads": beside, "decoding": decoding}
    runs = {"parts": shared, "one": alone, "wide": threads}
    save("context_parallel", given, {**figures, "kv_bytes_per_token": kv_bytes, **runs})


if __name__ == "__main__":
    main()
