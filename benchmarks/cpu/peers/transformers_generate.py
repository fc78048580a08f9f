"""transformers' generate() in bfloat16: one request at a time (works A and B)."""

from __future__ import annotations

import argparse
from time import perf_counter
from typing import Any

from benchmarks.cpu.protocol import Run, command_line, serve
from benchmarks.cpu.works import Request


class Clock:
    """A streamer that notes when tokens come; the prompt is put first."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def put(self, value: object) -> None:
        self.at.append(perf_counter())

    def end(self) -> None:
        pass


def start(model: str, threads: int) -> tuple[Run, dict[str, Any]]:
    import torch
    import transformers

    torch.set_num_threads(threads)
    loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
    loaded.eval()

    def run(requests: list[Request]) -> dict[str, float]:
        began, first, made = perf_counter(), None, 0
        for prompt, count in requests:
            clock, ids = Clock(), torch.tensor([prompt])
            with torch.inference_mode():
                loaded.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=count,
                    min_new_tokens=count,
                    do_sample=False,
                    eos_token_id=None,
                    pad_token_id=0,
                    streamer=clock,
                )
            made += len(clock.at) - 1
            first = clock.at[1] if first is None else first
        end = perf_counter()
        first_s = (end if first is None else first) - began
        return {"seconds": end - began, "first_s": first_s, "tokens": made}

    run([([300] * 64, 8)])
    return run, {"version": transformers.__version__, "kv_dtype": "bfloat16"}


def main() -> None:
    given = command_line(argparse.ArgumentParser())
    serve(lambda: start(given.model, given.threads))


if __name__ == "__main__":
    main()
