"""OpenVINO GenAI's continuous batching on a CPU, with the bfloat16 hint; prefix caching on."""

from __future__ import annotations

import argparse
from time import perf_counter
from typing import Any

from benchmarks.cpu.protocol import Run, command_line, serve
from benchmarks.cpu.works import Request


def start(model: str, threads: int) -> tuple[Run, dict[str, Any]]:
    import numpy as np
    import openvino as ov
    import openvino_genai as genai

    settings = genai.SchedulerConfig()
    settings.cache_size = 2  # GB
    settings.max_num_batched_tokens = 512
    settings.max_num_seqs = 64
    settings.dynamic_split_fuse = True
    settings.enable_prefix_caching = True
    options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "bf16"}
    pipeline = genai.ContinuousBatchingPipeline(model, settings, "CPU", options)
    serial = 0

    def run(requests: list[Request]) -> dict[str, float]:
        nonlocal serial
        began, first, made = perf_counter(), None, 0
        handles = []
        for prompt, count in requests:
            serial += 1
            config = genai.GenerationConfig()
            config.max_new_tokens = config.min_new_tokens = count
            config.ignore_eos, config.do_sample = True, False
            ids = ov.Tensor(np.array([prompt], dtype=np.int64))
            handles.append(pipeline.add_request(serial, ids, config))
        more = True
        while more:
            more = pipeline.has_non_finished_requests()
            if more:
                pipeline.step()
            for handle in handles:
                while handle.can_read():
                    made += sum(len(output.generated_ids) for output in handle.read().values())
            if first is None and made:
                first = perf_counter()
        end = perf_counter()
        first_s = (end if first is None else first) - began
        return {"seconds": end - began, "first_s": first_s, "tokens": made}

    run([([300] * 64, 8)])
    return run, {"version": ov.__version__.split("-")[0], "kv_dtype": "its default"}


def main() -> None:
    given = command_line(argparse.ArgumentParser())
    serve(lambda: start(given.model, given.threads))


if __name__ == "__main__":
    main()
