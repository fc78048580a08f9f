"""How long a large fleet takes to simulate, and in how much memory.

    python -m benchmarks.sim.scale [--replicas 1000] [--requests 1000000] [--tiny]

A day's curve of arrivals (one cycle from quiet to busy and back, Poisson around it), pressed into
the time in which that many requests keep the replicas 60% busy at its peak; conversations of
several turns with a shared system prompt; an 8-billion-parameter model in int8 on L4s by the
roofline. 1% of the replicas crash one after the other, some are slow for a while, one in three
hundred cannot be reached for a minute. The bar: 1,000 replicas, 1,000,000 requests, 15 minutes on
one core, 8 GiB.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from penstock.config.engine import EngineConfig
from penstock.report.machine import command_line, machine_info
from penstock.report.run import summarise
from penstock.sim.fleet import Fleet, FleetSpec
from penstock.sim.report import as_run
from penstock.sim.setup import engine_spec
from penstock.sizing.hardware import table
from penstock.sizing.precision import precision
from penstock.sizing.shape import ModelShape
from penstock.workload.archetypes import PRESETS, fixed, lognormal
from penstock.workload.definition import (
    Arrivals,
    Clause,
    Fault,
    Lengths,
    Overload,
    Prefix,
    PrefixNode,
    Season,
    Window,
    Workload,
)
from penstock.workload.sessions import Generator

RESULT = Path(__file__).parent.parent / "results" / "sim_scale.json"
MODEL = ModelShape(
    "8B", vocab_size=128256, hidden_size=4096, mlp_size=14336, num_heads=32, num_kv_heads=8,
    head_dim=128, windows=(0,) * 32, max_positions=16384, tied=False,
)  # fmt: skip
TURNS = 4
PEAK_PER_REPLICA = 0.8
"""Calls/s at the busiest moment."""
PEAK = 1.6
"""Of the mean rate."""


def workload(replicas: int, requests: int) -> Workload:
    mean = replicas * PEAK_PER_REPLICA / PEAK
    duration = requests / mean
    sessions = mean / TURNS
    base = PRESETS["chatbot"]()
    return replace(
        base,
        window=Window(base.window.start, duration),
        arrivals=Arrivals(
            "poisson", sessions, 1.55 * sessions, PEAK * sessions, duration / 200,
            seasons=(Season(duration, 1.0, 0.6 * duration),),
        ),
        lengths=Lengths(lognormal(900, 4000, 12000), lognormal(150, 500, 2000), 0.2, 0.8),
        sessions=replace(
            base.sessions, turns=fixed(TURNS), think_time_s=lognormal(10, 40, 120), tool_share=0.0
        ),
        prefix=Prefix(0.6, 0.5, lognormal(10, 40, 120), (PrefixNode("system", 400, copies=20),)),
        slo=(Clause("ttft_s", 99, 4.0), Clause("tpot_s", 99, 0.15)),
        overload=Overload("queue"),
        faults=faults(replicas, duration),
    )  # fmt: skip


def faults(replicas: int, duration: float) -> tuple[Fault, ...]:
    crashes = max(1, replicas // 100)
    every = duration / (crashes + 1)
    return (
        *(Fault("crash", every * (i + 1), 60.0) for i in range(crashes)),
        Fault("slow", 0.3 * duration, 0.1 * duration, max(1, replicas // 200), 3.0),
        Fault("unreachable", 0.6 * duration, 60.0, max(1, replicas // 300)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--replicas", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--tiny", action="store_true", help="try the script")
    given = parser.parse_args()
    if given.tiny:
        given.replicas, given.requests = 10, 2000
    load = workload(given.replicas, given.requests)
    engine = engine_spec(
        EngineConfig(max_num_seqs=64, max_num_batched_tokens=1024, block_size=32),
        MODEL,
        table()["L4"],
        precision("int8"),
    )
    began, used = time.perf_counter(), time.process_time()
    spec = FleetSpec(engine, given.replicas, start_s=60.0, faults=load.faults)
    fleet = Fleet(spec, Generator(load).requests())
    records = fleet.run()
    wall_s, cpu_s = time.perf_counter() - began, time.process_time() - used
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    run = as_run(fleet, load, 0.0, load.window.duration_s, {}, {})
    summary = summarise(run)
    figures = {
        "replicas": given.replicas,
        "requests": len(records),
        "simulated_s": fleet.kernel.now(),
        "steps": fleet.usage.steps,
        "events": fleet.kernel.executed,
        "wall_s": wall_s,
        "cpu_s": cpu_s,
        "memory_bytes": memory,
        "answered": sum(record.answered for record in records),
        "errors": dict(Counter(r.error for r in records if r.error)),
        "hit_rate": summary.hit_rate,
        "ttft_p99_s": summary.metrics["ttft_s"].at["p99"].value,
        "tpot_p99_s": summary.metrics["tpot_s"].at["p99"].value,
        "utilisation": fleet.usage.utilisation,
    }
    print(json.dumps(figures, indent=2))
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    bars = (("minutes of CPU", cpu_s / 60, 15.0), ("GiB", memory / 2**30, 8.0))
    for name, value, bar in bars:
        print(f"{'ok  ' if value <= bar else 'MISS'} {name}: {value:.2f} (bound: <= {bar:g})")
    if not given.tiny:
        command = "python -m benchmarks.sim.scale " + command_line().partition(" ")[2]
        about = {"benchmark": "sim_scale", "command": command, "machine": machine_info()}
        RESULT.write_text(json.dumps(about | figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
