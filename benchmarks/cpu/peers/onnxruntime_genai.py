"""ONNX Runtime GenAI on a CPU: one request at a time, as its generator has it (works A and B)."""

from __future__ import annotations

import argparse
import json
from time import perf_counter
from typing import Any

from benchmarks.cpu.protocol import Run, command_line, serve
from benchmarks.cpu.works import Request


def start(model: str, threads: int) -> tuple[Run, dict[str, Any]]:
    import numpy as np
    import onnxruntime_genai as genai

    config = genai.Config(model)
    options = {"session_options": {"intra_op_num_threads": threads}}
    config.overlay(json.dumps({"model": {"decoder": options}}))
    loaded = genai.Model(config)

    def run(requests: list[Request]) -> dict[str, float]:
        began, first, made = perf_counter(), None, 0
        for prompt, count in requests:
            parameters = genai.GeneratorParams(loaded)
            length = len(prompt) + count
            parameters.set_search_options(
                min_length=length,
                max_length=length,
                batch_size=1,
                do_sample=False,
                past_present_share_buffer=True,
            )
            generator = genai.Generator(loaded, parameters)
            generator.append_tokens(np.array([prompt], dtype=np.int32))
            while not generator.is_done():
                generator.generate_next_token()
                made += 1
                if first is None:
                    first = perf_counter()
        end = perf_counter()
        first_s = (end if first is None else first) - began
        return {"seconds": end - began, "first_s": first_s, "tokens": made}

    run([([300] * 64, 8)])
    return run, {"version": genai.__version__, "kv_dtype": "its default"}


def main() -> None:
    given = command_line(argparse.ArgumentParser())
    serve(lambda: start(given.model, given.threads))


if __name__ == "__main__":
    main()
