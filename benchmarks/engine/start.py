"""How long the program takes to say something, and the demo server to be ready.

    python -m benchmarks.engine.start [--runs 10]

`penstock --help` and `penstock serve` are started as processes; ready is the first 200 of /ready,
asked every 5 ms. The very first start of each is told apart: it may read files from the disk.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks.harness import arguments, save, verdict
from benchmarks.make_checkpoint import checkpoint
from penstock.report.stats import median

SCRIPT = Path(sys.executable).with_name("penstock")
PENSTOCK = [str(SCRIPT)] if SCRIPT.exists() else [sys.executable, "-m", "penstock.cli"]


def help_s() -> float:
    began = time.perf_counter()
    subprocess.run([*PENSTOCK, "--help"], check=True, capture_output=True)
    return time.perf_counter() - began


def ready_s(flags: list[str], limit_s: float = 60.0) -> tuple[float, str]:
    """Seconds until /ready says yes, and what the server printed."""
    port = free_port()
    began = time.perf_counter()
    process = subprocess.Popen(
        [*PENSTOCK, "serve", "--port", str(port), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        while not is_ready(port):
            if process.poll() is not None or time.perf_counter() - began > limit_s:
                process.kill()
                raise RuntimeError(f"the server did not start:\n{process.communicate()[0]}")
            time.sleep(0.005)
        took_s = time.perf_counter() - began
    finally:
        process.send_signal(signal.SIGTERM)
    return took_s, process.communicate(timeout=limit_s)[0]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False


def repeated(name: str, runs: list[float], bound_s: float) -> dict[str, Any]:
    """Print a row; the first run stands apart."""
    first, rest = runs[0], runs[1:]
    middle = median(rest)
    print(f"{name}: first {first:.3f} s, then " + " ".join(f"{run:.3f}" for run in rest))
    print(verdict(f"{name}: median s", middle, f"< {bound_s}", middle < bound_s))
    return {"first_s": first, "runs_s": rest, "median_s": middle}


def main() -> None:
    given = arguments(__doc__ or "", runs=10, starts=5)
    flags = ["--model", str(checkpoint("tiny"))] if given.tiny else []
    helps = repeated("penstock --help", [help_s() for _ in range(given.runs + 1)], 0.3)
    started = [ready_s(flags) for _ in range(given.starts + 1)]
    starts = repeated("demo server ready", [took for took, _ in started], 5.0)
    printed = started[-1][1]
    print(f"what the last start printed:\n{printed}")
    save("start", given, {"help": helps, "ready": starts, "printed": printed.splitlines()})


if __name__ == "__main__":
    main()
