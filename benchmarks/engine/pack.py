"""Starts with and without prepared weights, and decoding from mapped pages beside huge ones.

    python -m benchmarks.engine.pack [--pairs 5] [--shape q06] [--quantization int4]

The first start reads, quantizes and packs the checkpoint (`--no-weights-cache`); a second one maps
the file that it left, or copies it to huge pages. Decoding is one request at a time.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from time import perf_counter

from benchmarks.engine.decode import alone
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


def main() -> None:
    given = arguments(__doc__ or "", shape="l135", quantization="int8", output_len=128)
    folder = checkpoint("tiny" if given.tiny else given.shape)
    with tempfile.TemporaryDirectory() as cache:

        def start(memory: str) -> tuple[Driver, float]:
            began = perf_counter()
            driver = Driver(
                folder,
                max_model_len=1024,
                quantization=given.quantization,
                weights_cache_dir=cache,
                weights_memory=memory,
                max_num_seqs=4,
            )
            return driver, perf_counter() - began

        first, first_s = start("copied")
        first.close()
        seconds: dict[str, list[float]] = {"mapped": [], "copied": []}
        speeds: dict[str, list[float]] = {"mapped": [], "copied": []}

        def one(memory: str, index: int) -> None:
            driver, took_s = start(memory)
            prompt = random_ids(64, driver.info.vocab_size, index)
            alone(driver, prompt, 8)
            seconds[memory].append(took_s)
            speeds[memory].append(alone(driver, prompt[::-1], given.output_len)["decode"])
            driver.close()

        interleaved(given.pairs, lambda i: one("mapped", i), lambda i: one("copied", i))
        size = sum(path.stat().st_size for path in Path(cache).glob("*.weights"))
    print(f"{size / 2**20:.0f} MiB; first start {first_s:.2f} s")
    for memory in seconds:
        print(
            f"{memory}: start {median(seconds[memory]):.2f} s, "
            f"decode {median(speeds[memory]):.1f} tok/s"
        )
    ratio = median_ratio(speeds["copied"], speeds["mapped"])
    faster = first_s / median(seconds["copied"])
    print(verdict("first start / later start", faster, ">= 2", faster >= 2))
    print(verdict("decode, huge pages / mapped", ratio, ">= 1", ratio >= 1))
    figures = {"first_s": first_s, "start_s": seconds, "decode": speeds, "ratio": ratio}
    save("pack", given, figures)


if __name__ == "__main__":
    main()
