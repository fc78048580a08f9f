"""The work H through the whole server: `penstock serve`, loaded by `penstock bench serve`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.engine.start import free_port, is_ready

STREAMS, LENGTH = 16, 128
START_S = 300.0
PENSTOCK = [sys.executable, "-m", "penstock.cli"]


@contextmanager
def serving(checkpoint: Path, threads: int, log: Path) -> Iterator[str]:
    """The URL of a server of the checkpoint in int8."""
    port = free_port()
    command = [*PENSTOCK, "serve", "--model", str(checkpoint), "--port", str(port)]
    command += ["--quantization", "int8", "--max-model-len", "2048", "--num-threads", str(threads)]
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + START_S
        while not is_ready(port):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"penstock serve does not answer: {log}")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def measure_http(url: str, scale: int) -> dict[str, float]:
    """16 streams at once; `generator_cpu` is the load generator's share of one core."""
    length = str(max(2, LENGTH // scale))
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [*PENSTOCK, "bench", "serve", "--url", url, "--json", file.name]
        command += ["--input-len", length, "--output-len", length]
        command += ["--concurrency", str(STREAMS), "--num-requests", str(STREAMS)]
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        took_s = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"penstock bench serve ended with {process.returncode}")
        (level,) = json.loads(Path(file.name).read_text())["levels"]
    return {
        "seconds": level["duration_s"],
        "first_s": level["ttft_s"]["p50"],
        "tokens": level["output_tokens"],
        "generator_cpu": (usage.ru_utime + usage.ru_stime) / took_s,
    }
