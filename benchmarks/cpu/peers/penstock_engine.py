"""Penstock's engine in this process, without the API above it."""

from __future__ import annotations

import argparse
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.cpu.protocol import Run, command_line, serve
from benchmarks.cpu.works import Request
from benchmarks.harness import Driver

SUMS = ("step_s", "device_s", "floor_s", "bytes_moved", "operations")


def start(model: str, quantization: str, threads: int | None) -> tuple[Run, dict[str, Any]]:
    import penstock

    driver = Driver(
        Path(model),
        max_model_len=2048,
        quantization=quantization,
        max_num_seqs=64,
        num_threads=threads,
    )

    def run(requests: list[Request]) -> dict[str, float]:
        driver.steps.clear()
        driver.traces.clear()
        began = perf_counter()
        traces = [driver.add(prompt, count) for prompt, count in requests]
        driver.run()
        seconds = perf_counter() - began
        found = {
            "seconds": seconds,
            "first_s": min(trace.tokens_s[0] for trace in traces) - traces[0].sent_s,
            "tokens": sum(len(trace.tokens_s) for trace in traces),
            "steps": len(driver.steps),
        }
        found |= {name: sum(getattr(step, name) for step in driver.steps) for name in SUMS}
        shares = [
            (step.host_share, step.step_s)
            for step in driver.steps
            if getattr(step, "host_share", None) is not None
        ]
        if shares:  # where the kernels compute the model
            whole = sum(seconds for _, seconds in shares)
            found["host_share"] = sum(share * seconds for share, seconds in shares) / whole
        return found

    run([([300] * 64, 8)])
    facts = {"version": penstock.__version__, "kv_dtype": driver.info.dtype}
    return run, facts | {"notes": driver.info.notes}


def main() -> None:
    given = command_line(argparse.ArgumentParser(), "--quantization")
    serve(lambda: start(given.model, given.quantization or "none", given.threads))


if __name__ == "__main__":
    main()
