"""The simulator beside the real engine on this machine, workload by workload.

    python -m benchmarks.sim.parity [--runs 5] [--seconds 60] [--tiny]

Costs are fitted on one workload (lengths and concurrency of every kind) and used for four others:
steady requests near saturation, prompts that share a prefix, conversations, and a slice of a
recorded trace. Each is run `--runs` times on the engine and simulated once. A figure holds if it
lies within the real runs' range, or near their median: throughput 3%, TTFT p50 10%, TTFT p99 20%,
hit rate 2 points.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path

from benchmarks.arrivals import TimedEngine
from benchmarks.make_checkpoint import checkpoint
from penstock.report.machine import command_line, machine_info
from penstock.report.records import RequestRecord
from penstock.report.stats import median, percentile
from penstock.sim.costs import FittedCosts, fitted
from penstock.sim.engine import EngineSpec
from penstock.sim.fleet import Fleet, FleetSpec
from penstock.workload import replay, traces
from penstock.workload.prefixes import Segment, name_of
from penstock.workload.sessions import TimedRequest

ROOT = Path(__file__).parent.parent
TRACE = ROOT.parent / "tests" / "data" / "traces" / "azure_conv.csv"
NEAR = {"tokens_per_s": 0.03, "ttft_p50_s": 0.10, "ttft_p99_s": 0.20, "hit_rate": 0.02}
SEQS = 16


def one(
    number: int, at_s: float, tokens: int, output: int, start: tuple[Segment, ...] = ()
) -> TimedRequest:
    own = Segment(name_of(number, 9), max(1, tokens - sum(s.tokens for s in start)))
    prompt = (*start, own)
    total = sum(segment.tokens for segment in prompt)
    return TimedRequest(
        number, at_s, number, 0, (), 0.0, prompt, total, output, name_of(number, 1),
        "interactive", "here",
    )  # fmt: skip


def poisson(count: int, rate: float, seed: int, shared: int = 0) -> list[TimedRequest]:
    rng, at, made = random.Random(seed), 0.0, []
    for number in range(count):
        at += rng.expovariate(rate)
        start = (Segment(7, shared),) if shared else ()
        length = shared + rng.randrange(40, 300)
        made.append(one(number, at, length, rng.randrange(8, 48), start))
    return made


def conversations(count: int, rate: float, turns: int, wait_s: float) -> list[TimedRequest]:
    made: list[TimedRequest] = []
    for session in range(count):
        history: tuple[Segment, ...] = ()
        for turn in range(turns):
            number = session * turns + turn
            item = one(number, session / rate, sum(s.tokens for s in history) + 80, 24, history)
            parents = (number - 1,) if turn else ()
            made.append(
                TimedRequest(
                    number, item.at_s, session, turn, parents, wait_s if turn else 0.0,
                    item.prompt, item.input_tokens, item.output_tokens, item.answer,
                    "interactive", "here",
                )
            )  # fmt: skip
            history = (*item.prompt, Segment(item.answer, item.output_tokens))
    return made


def trace_slice(rate: float) -> list[TimedRequest]:
    """Recorded times and lengths, the lengths an eighth, at that mean rate."""
    name = TRACE.name
    rows = list(replay.requests(traces.parse(TRACE.read_text().splitlines(), name)))
    scale = len(rows) / rate / (rows[-1].at_s + 1e-9)
    return [
        one(n, r.at_s * scale, 8 + r.input_tokens // 8, 4 + r.output_tokens // 8)
        for n, r in enumerate(rows)
    ]


def calibration(engine: TimedEngine) -> FittedCosts:
    """Every kind of step: bursts of rising size, alone and together, short and long."""
    rng, made, at = random.Random(99), [], 0.0
    for width in (1, 2, 4, 8, SEQS, 1, SEQS, 6, 3, 12):
        for _ in range(width):
            made.append(one(len(made), at, rng.choice([16, 60, 200, 500]), rng.randrange(8, 60)))
        at += 0.15 * width
    engine.run(made)
    engine.steps.clear()  # the first run warms up
    engine.run(made)
    engine.run([one(n, 0.3 * n, 40 + 20 * n, 30) for n in range(20)])
    steps = list(engine.steps)
    engine.steps.clear()
    return fitted(steps)


def figures(records: Sequence[RequestRecord]) -> dict[str, float]:
    good = [r for r in records if r.answered]
    assert len(good) == len(records), "requests failed"
    ttft = [r.ttft_s for r in good if r.ttft_s is not None]
    span = max(r.end_s or 0.0 for r in good) - min(r.due_s for r in good)
    return {
        "tokens_per_s": sum(r.output_tokens for r in good) / span,
        "ttft_p50_s": percentile(ttft, 50),
        "ttft_p99_s": percentile(ttft, 99),
        "hit_rate": sum(r.cached_tokens for r in good) / sum(r.input_tokens for r in good),
    }


def simulate(engine: TimedEngine, costs: FittedCosts, requests: Sequence[TimedRequest]) -> Fleet:
    spec = EngineSpec(
        engine.engine.scheduler.limits, engine.info.num_blocks, costs, engine.info.block_size,
        config=engine.config,
    )  # fmt: skip
    fleet = Fleet(FleetSpec(spec), requests)
    fleet.run()
    return fleet


def holds(name: str, value: float, real: Sequence[float]) -> bool:
    middle = median(real)
    near = NEAR[name] if name == "hit_rate" else NEAR[name] * middle
    return min(real) <= value <= max(real) or abs(value - middle) <= near


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each workload")
    parser.add_argument("--tiny", action="store_true", help="try the script on a tiny model")
    given = parser.parse_args()
    if given.tiny:
        given.runs, given.seconds = 1, 0.3
    model = checkpoint("tiny" if given.tiny else "l135")
    engine = TimedEngine(model, 2048, max_num_seqs=SEQS, kv_cache_memory_bytes=2**29)
    costs = calibration(engine)
    burst = figures(simulate(engine, costs, poisson(200, 1e6, 5)).records)
    capacity = burst["tokens_per_s"] / 28  # mean output of `poisson`
    half = 0.5 * capacity
    count = max(20, int(half * given.seconds))
    workloads = {
        "near saturation": poisson(int(1.8 * count), 0.9 * capacity, 1),
        "shared prefix": poisson(count, half, 2, shared=400),
        "conversations": conversations(max(5, count // 4), half / 4, 4, 0.5),
        "trace slice": trace_slice(half),
    }
    told, missed = {}, 0
    for name, requests in workloads.items():
        foretold = figures(simulate(engine, costs, requests).records)
        engine.run(requests[: min(10, len(requests))])
        real = [figures(engine.run(requests)) for _ in range(given.runs)]
        told[name] = {"simulated": foretold, "real": real}
        print(f"{name}: {len(requests)} requests")
        for figure, value in foretold.items():
            seen = [run[figure] for run in real]
            ok = holds(figure, value, seen)
            missed += not ok
            print(
                f"  {'ok  ' if ok else 'MISS'} {figure:14} simulated {value:10.4f}   "
                f"real {min(seen):10.4f} to {max(seen):10.4f}, median {median(seen):10.4f}"
            )
    print(f"{missed} of {4 * len(workloads)} figures missed")
    engine.close()
    if not given.tiny:
        data = {
            "benchmark": "sim_parity", "machine": machine_info(), "options": vars(given),
            "command": "python -m benchmarks.sim.parity " + command_line().partition(" ")[2],
            "costs": costs.to_dict(), "workloads": told,
        }  # fmt: skip
        (ROOT / "results" / "sim_parity.json").write_text(json.dumps(data, indent=2) + "\n")


if __name__ == "__main__":
    main()
