"""The benchmark scripts run, on a tiny model: what they print is no result, but nothing is broken.

Their claims are not judged here; a machine that runs tests is no place to measure.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = {
    "decode": ("--pairs 1 --output-len 32 --concurrency 4", "at once / transformers, decode"),
    "prefix": ("--pairs 1 --requests 4 --prefix-len 200 --output-len 4", "unshared: throughput"),
    "chunks": ("--pairs 1 --prompt-len 1000 --streams 3", "default budget: step"),
    "start": ("--runs 1 --starts 1", "what the last start printed"),
    "pack": ("--pairs 1 --output-len 8", "decode, huge pages / mapped"),
    "allreduce": ("--ranks 2", "shared memory / gloo's own"),
    "context_parallel": ("--pairs 1 --prompt-len 200", "speed of decoding"),
    "pipeline": ("--pairs 1 --requests 4 --output-len 8", "two stages / one process"),
    "data_parallel": (
        "--pairs 1 --requests 4 --prompt-len 20 --output-len 8",
        "two engines / one engine with all",
    ),
    "logging": (
        "--pairs 2 --requests 6 --concurrency 3 --prompt-len 20 --output-len 8",
        "share of CPU",
    ),
    "router": ("--decisions 100", "router decision p50"),
    "grammar": ("--pairs 1 --output-len 16", "step overhead"),
    "batch_beside": (
        "--pairs 1 --requests 10 --rate 10 --prompt-len 60 --output-len 8 --rows 4000",
        "TTFT p95, beside a batch / alone",
    ),
    "slo": ("--pairs 1", "throughput slo / fcfs"),
    "scheduler": ("--pairs 1 --steps 100 --requests 32", "depth 2: median step"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_script_runs_to_its_last_claim(name: str) -> None:
    flags, last = SCRIPTS[name]
    command = [sys.executable, "-m", f"benchmarks.engine.{name}", "--tiny", "--threads", "1"]
    done = subprocess.run(
        [*command, *flags.split()], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert last in done.stdout
    assert "nan" not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("name", "last"), [("scale", "GiB"), ("parity", "figures missed")])
def test_script_of_the_simulator_runs(name: str, last: str) -> None:
    command = [sys.executable, "-m", f"benchmarks.sim.{name}", "--tiny"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert last in done.stdout
