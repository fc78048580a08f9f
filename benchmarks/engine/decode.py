"""One request at a time beside transformers' generate(), and 16 at once beside one at a time.

    python -m benchmarks.engine.decode [--pairs 5] [--tiny]

Both run in this process on the same threads, in turns, greedy, on the same prompts. "decode" is
tokens/s after the first token; "whole" counts the prompt's time as well. At concurrency 16 the
decode figure counts the tokens made while all 16 run.
"""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any, cast

from benchmarks.harness import (
    Driver,
    arguments,
    interleaved,
    median_ratio,
    random_ids,
    roofline,
    save,
    verdict,
)
from benchmarks.make_checkpoint import checkpoint
from penstock.report.stats import median


class Clocked:
    """A transformers streamer that notes when tokens come; the prompt is put first."""

    def __init__(self) -> None:
        self.tokens_s: list[float] = []

    def put(self, value: object) -> None:
        self.tokens_s.append(perf_counter())

    def end(self) -> None:
        pass


class Transformers:
    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        self.model = cast(Any, model)  # the library's types of generate() contradict its use

    def generate(self, prompt: list[int], output_len: int) -> dict[str, float]:
        import torch

        ids, times = torch.tensor([prompt]), Clocked()
        began = perf_counter()
        with torch.inference_mode():
            self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=output_len,
                min_new_tokens=output_len,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
                streamer=times,
            )
        tokens_s = times.tokens_s[1:]
        assert len(tokens_s) == output_len
        return rates(began, tokens_s)


def rates(began: float, tokens_s: list[float]) -> dict[str, float]:
    """Tokens/s of one request; `ttft_ms` beside them."""
    return {
        "decode": (len(tokens_s) - 1) / (tokens_s[-1] - tokens_s[0]),
        "whole": len(tokens_s) / (tokens_s[-1] - began),
        "ttft_ms": (tokens_s[0] - began) * 1e3,
    }


def alone(driver: Driver, prompt: list[int], output_len: int) -> dict[str, float]:
    trace = driver.add(prompt, output_len)
    driver.run()
    assert len(trace.tokens_s) == output_len
    return rates(trace.sent_s, trace.tokens_s)


def together(driver: Driver, prompts: list[list[int]], output_len: int) -> dict[str, float]:
    """All at once: tokens/s while all of them decode, and from the first sent to the last token."""
    traces = [driver.add(prompt, output_len) for prompt in prompts]
    driver.run()
    start = max(trace.tokens_s[0] for trace in traces)
    end = min(trace.tokens_s[-1] for trace in traces)
    assert start < end, "the first request ended before the last one began: raise --output-len"
    during = sum(start < at <= end for trace in traces for at in trace.tokens_s)
    whole_s = max(trace.tokens_s[-1] for trace in traces) - traces[0].sent_s
    return {
        "decode": during / (end - start),
        "whole": len(traces) * output_len / whole_s,
        "ttft_ms": median([trace.ttft_s for trace in traces]) * 1e3,
    }


def pick(rows: list[dict[str, float]], name: str) -> list[float]:
    return [row[name] for row in rows]


def main() -> None:
    given = arguments(__doc__ or "", input_len=128, output_len=128, concurrency=16)
    folder = checkpoint("tiny" if given.tiny else "l135")
    peer = Transformers(folder)
    driver = Driver(folder, max_model_len=2048, enable_prefix_caching=False)
    vocab_size = driver.info.vocab_size
    peer.generate(random_ids(16, vocab_size, "warm"), 4)
    alone(driver, random_ids(16, vocab_size, "warm"), 4)

    def prompt(index: int, place: int = 0) -> list[int]:
        return random_ids(given.input_len, vocab_size, f"{index}/{place}")

    def many(index: int) -> dict[str, float]:
        prompts = [prompt(index, place) for place in range(given.concurrency)]
        return together(driver, prompts, given.output_len)

    ours, theirs = interleaved(
        given.pairs,
        lambda index: alone(driver, prompt(index), given.output_len),
        lambda index: peer.generate(prompt(index), given.output_len),
    )
    batches, singles = interleaved(
        given.pairs, many, lambda index: alone(driver, prompt(index), given.output_len)
    )
    runs = {
        "transformers": theirs,
        "one at a time": ours,
        "one at a time, again": singles,
        f"{given.concurrency} at once": batches,
    }
    report(given, runs)
    print(roofline(driver.steps))


def report(given: Any, runs: dict[str, list[dict[str, float]]]) -> None:
    """Print the table and the claims, and save them. Rows come in the order of `main`."""
    print(f"{'':24}{'decode tok/s':>14}{'whole tok/s':>14}{'TTFT ms':>10}")
    for name, rows in runs.items():
        cells = [median(pick(rows, key)) for key in ("decode", "whole", "ttft_ms")]
        print(f"{name:24}{cells[0]:14.1f}{cells[1]:14.1f}{cells[2]:10.1f}")
    theirs, ours, singles, batches = runs.values()
    decode = median_ratio(pick(ours, "decode"), pick(theirs, "decode"))
    whole = median_ratio(pick(ours, "whole"), pick(theirs, "whole"))
    batched = median_ratio(pick(batches, "decode"), pick(singles, "decode"))
    over_peer = median(pick(batches, "decode")) / median(pick(theirs, "decode"))
    print(verdict("one at a time / transformers, decode", decode, ">= 1", decode >= 1))
    print(verdict("one at a time / transformers, whole", whole, ">= 1", whole >= 1))
    print(verdict("at once / one at a time, decode", batched, ">= 5", batched >= 5))
    print(verdict("at once / transformers, decode", over_peer, ">= 5", over_peer >= 5))
    ratios = {"decode": decode, "whole": whole, "batched": batched, "batched / peer": over_peer}
    save("decode", given, {"ratios": ratios, "runs": runs})


if __name__ == "__main__":
    main()
