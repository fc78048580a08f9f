"""vLLM's CPU build, its engine in this process; prefix caching and torch.compile on."""

from __future__ import annotations

import argparse
import os
from time import perf_counter
from typing import Any

from benchmarks.cpu.protocol import Run, command_line, serve
from benchmarks.cpu.works import Request

SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_USE_AOT_COMPILE": "0",  # 0.32.0 fails to load what it kept
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


def start(model: str, threads: int) -> tuple[Run, dict[str, Any]]:
    os.environ.update(SETTINGS, VLLM_CPU_OMP_THREADS_BIND=f"0-{threads - 1}")
    import vllm

    llm = vllm.LLM(
        model=model,
        dtype="bfloat16",
        max_model_len=2048,
        max_num_seqs=64,
        max_num_batched_tokens=2048,
        enable_prefix_caching=True,
        seed=0,
    )
    engine, serial = llm.llm_engine, 0

    def run(requests: list[Request]) -> dict[str, float]:
        nonlocal serial
        made: dict[str, int] = {}
        began, first = perf_counter(), None
        for prompt, count in requests:
            serial += 1
            parameters = vllm.SamplingParams(
                temperature=0, max_tokens=count, min_tokens=count, ignore_eos=True, detokenize=False
            )
            engine.add_request(str(serial), {"prompt_token_ids": prompt}, parameters)
        while engine.has_unfinished_requests():
            for output in engine.step():
                made[output.request_id] = len(output.outputs[0].token_ids)
                if first is None and made[output.request_id]:
                    first = perf_counter()
        end = perf_counter()
        first_s = (end if first is None else first) - began
        return {"seconds": end - began, "first_s": first_s, "tokens": sum(made.values())}

    run([([300] * 64, 8)])
    run([([400 + i] * 200, 8) for i in range(8)])
    return run, {"version": vllm.__version__, "kv_dtype": "bfloat16"}


def main() -> None:
    given = command_line(argparse.ArgumentParser())
    serve(lambda: start(given.model, given.threads))


if __name__ == "__main__":
    main()
