"""The policies of the production scheduler beside each other, on recorded arrivals."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from penstock.config.engine import EngineConfig
from penstock.core.limits import Limits
from penstock.core.slo_scheduler import SloScheduler
from penstock.errors import ConfigError
from penstock.sim.engine import EngineSpec
from penstock.sim.fleet import Fleet, FleetSpec
from penstock.workload import replay, traces
from penstock.workload.sessions import TimedRequest
from tests.sim.parts import COSTS, engine, request

TRACES = Path(__file__).parent.parent / "data" / "traces"
TTFT_S, ITL_S = 0.5, 0.1


def test_the_config_names_the_policy() -> None:
    spec = replace(engine(), config=EngineConfig(scheduling_policy="slo", slo_agent_ttft_s=3.0))
    scheduler = spec.scheduler(Fleet(FleetSpec(spec), []).kernel)
    assert isinstance(scheduler, SloScheduler)
    assert scheduler.promises.agent.ttft_s == 3.0
    with pytest.raises(ConfigError, match="lottery"):
        replace(engine(), config=EngineConfig(scheduling_policy="lottery")).scheduler(
            Fleet(FleetSpec(spec), []).kernel
        )


def mix(name: str, count: int, batch: int) -> list[TimedRequest]:
    """Recorded arrivals as interactive requests, lengths cut to a small engine's, a few a second;
    beside them jobs of `batch` long requests at once, twelve seconds apart."""
    text = (TRACES / name).read_text().splitlines()
    rows = list(replay.requests(traces.parse(text, name), "interactive"))
    times = [row.at_s for row in rows]
    span = count / 5.0
    scale = span / (times[min(count, len(times)) - 1] - times[0] + 1e-9)
    turns = -(-count // len(rows))
    found = [
        request(
            number,
            (number // len(rows)) * span / turns
            + (row.at_s - times[0]) * scale / (turns if count > len(rows) else 1),
            20 + row.input_tokens % 180,
            4 + row.output_tokens % 40,
        )
        for number, row in ((n, rows[n % len(rows)]) for n in range(count))
    ]
    jobs = [
        request(count + number, 12.0 * (number // batch), 400, 120, slo_class="batch")
        for number in range(batch * int(span // 12.0 + 1))
    ]
    return sorted([*found, *jobs], key=lambda r: (r.at_s, r.id))


@dataclass
class Result:
    attained: float
    """share of interactive requests inside both promises; a refused one is not"""
    tokens_per_s: float
    utilisation: float
    batch_done: bool
    predicted: float
    """median of predicted / actual TTFT"""


def run(policy: str, requests: list[TimedRequest]) -> Result:
    config = EngineConfig(
        scheduling_policy=policy, slo_interactive_ttft_s=TTFT_S, slo_interactive_itl_s=ITL_S
    )
    spec = EngineSpec(Limits(16, 256, 2048, 2), 2000, COSTS, config=config)
    fleet = Fleet(FleetSpec(spec), requests)
    records = fleet.run()
    people = [r for r in records if r.slo_class == "interactive"]
    good = sum(
        r.answered and (r.ttft_s or 0) <= TTFT_S and (r.longest_stall_s or 0) <= ITL_S
        for r in people
    )
    ends = max(r.end_s or 0.0 for r in records)
    ratios = sorted(
        r.predicted_ttft_s / r.ttft_s for r in people if r.predicted_ttft_s and r.ttft_s
    )
    return Result(
        good / len(people), sum(r.output_tokens for r in records) / ends,
        fleet.usage.busy_s / ends, all(r.answered for r in records if r.slo_class == "batch"),
        ratios[len(ratios) // 2] if ratios else 0.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("azure_conv.csv", 300),
        ("mooncake_conversation.jsonl", 300),
        pytest.param("azure_conv.csv", 5000, marks=pytest.mark.slow),
        pytest.param("mooncake_conversation.jsonl", 5000, marks=pytest.mark.slow),
    ],
)
def test_promises_hold_where_first_come_first_served_breaks_them(name: str, count: int) -> None:
    requests = mix(name, count, BATCH)
    fcfs, slo = run("fcfs", requests), run("slo", requests)
    assert 0.85 <= fcfs.utilisation <= 0.97
    assert fcfs.attained <= 0.8
    assert slo.attained >= 0.99
    assert slo.tokens_per_s >= 0.95 * fcfs.tokens_per_s
    assert slo.batch_done
    assert 0.4 <= slo.predicted <= 2.0


BATCH = 70
"""Requests of a job: the engine is then busy for nine tenths of the time."""
