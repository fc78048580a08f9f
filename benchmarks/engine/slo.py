"""Promises to people beside batch work, on the real engine: policy `slo` against `fcfs`.

    python -m benchmarks.engine.slo [--pairs 3] [--tiny]

Interactive requests come at random; every quarter of the run a job of long batch requests comes at
once, so that the engine is busy for nine tenths of the time. Attained: interactive requests whose
first token and longest gap keep the promise (a refused one does not), which is set to three
times what the engine needs for them when it is idle. Claims: slo >= 99% where fcfs <= 80%, with
at least 95% of its throughput.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from benchmarks.arrivals import TimedEngine
from benchmarks.harness import arguments, interleaved, median_ratio, save, verdict
from benchmarks.make_checkpoint import checkpoint
from benchmarks.sim.parity import one
from penstock.report.records import RequestRecord
from penstock.report.stats import median, percentile
from penstock.workload.sessions import TimedRequest

JOBS = 4
BATCH_IN, BATCH_OUT = 300, 100


def mix(seed: int, seconds: float, rate: float, job: int) -> list[TimedRequest]:
    rng, at, made = random.Random(seed), 0.0, []
    while (at := at + rng.expovariate(rate)) < seconds:
        made.append(one(len(made), at, rng.randrange(30, 150), rng.randrange(8, 40)))
    for number in range(JOBS * job):
        batch = one(len(made), seconds / JOBS * (number // job), BATCH_IN, BATCH_OUT)
        made.append(replace(batch, slo_class="batch"))
    return sorted(made, key=lambda r: (r.at_s, r.id))


def attained(records: list[RequestRecord], ttft_s: float, itl_s: float) -> float:
    people = [r for r in records if r.slo_class == "interactive"]
    return sum(
        r.answered and (r.ttft_s or 0.0) <= ttft_s and (r.longest_stall_s or 0.0) <= itl_s
        for r in people
    ) / len(people)


def throughput(records: list[RequestRecord]) -> float:
    return sum(r.output_tokens for r in records) / max(r.end_s or 0.0 for r in records)


def main() -> None:
    given = arguments(__doc__ or "", seconds=120.0)
    if given.tiny:
        given.seconds, given.pairs = 2.0, 1
    folder = checkpoint("tiny" if given.tiny else "l135")
    common: dict[str, Any] = {"max_num_seqs": 16, "kv_cache_memory_bytes": 2**29}
    fcfs = TimedEngine(folder, 2048, **common)
    fcfs.run([one(n, 0.0, 100, 20) for n in range(16)])
    alone = fcfs.run([one(n, 0.5 * n, 90, 24) for n in range(10)])
    ttft_s = 3 * percentile([r.ttft_s or 0.0 for r in alone], 90)
    itl_s = 5 * percentile([gap for r in alone for gap in r.gaps_s], 99)
    burst = fcfs.run([one(n, 0.0, BATCH_IN, BATCH_OUT) for n in range(64)])
    capacity = throughput(burst)
    rate = 0.25 * capacity / 24
    job = max(16, round(0.65 * capacity * given.seconds / BATCH_OUT / JOBS))
    slo = TimedEngine(
        folder, 2048, scheduling_policy="slo", slo_interactive_ttft_s=ttft_s,
        slo_interactive_itl_s=itl_s, **common,
    )  # fmt: skip
    slo.run(mix(0, min(5.0, given.seconds), rate, 16))  # it learns what steps cost
    runs = interleaved(
        given.pairs,
        lambda i: fcfs.run(mix(i + 1, given.seconds, rate, job)),
        lambda i: slo.run(mix(i + 1, given.seconds, rate, job)),
    )
    shares = [[attained(run, ttft_s, itl_s) for run in many] for many in runs]
    speeds = [[throughput(run) for run in many] for many in runs]
    relative = median_ratio(speeds[1], speeds[0])
    print(f"promised: TTFT {1e3 * ttft_s:.0f} ms, gaps {1e3 * itl_s:.0f} ms; "
          f"{rate:.2f} interactive requests/s, jobs of {job}")  # fmt: skip
    for name, many in zip(("fcfs", "slo"), shares, strict=True):
        print(f"{name:5} attained {', '.join(f'{share:.1%}' for share in many)}")
    ours, theirs = median(shares[1]), median(shares[0])
    print(verdict("attained with fcfs, %", 100 * theirs, "<= 80", theirs <= 0.8))
    print(verdict("attained with slo, %", 100 * ours, ">= 99", ours >= 0.99))
    print(verdict("throughput slo / fcfs", relative, ">= 0.95", relative >= 0.95))
    figures = {"ttft_s": ttft_s, "itl_s": itl_s, "fcfs": shares[0], "slo": shares[1],
               "throughput_ratio": relative, "tok_per_s": speeds}  # fmt: skip
    save("slo", given, figures)
    fcfs.close()
    slo.close()


if __name__ == "__main__":
    main()
