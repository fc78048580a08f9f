"""What `plan` buys keeps its promises in simulation, and one replica less does not."""

from __future__ import annotations

from dataclasses import replace
from itertools import takewhile

import pytest

from penstock.config.engine import EngineConfig
from penstock.report.run import summarise
from penstock.sim.fleet import Fleet, FleetSpec
from penstock.sim.report import as_run
from penstock.sim.setup import engine_spec
from penstock.sizing.demand import Rates
from penstock.sizing.hardware import table
from penstock.sizing.precision import precision
from penstock.sizing.shape import ModelShape
from penstock.sizing.sizer import Plan, Scope, size
from penstock.workload.archetypes import PRESETS, fixed, lognormal
from penstock.workload.definition import (
    Arrivals,
    Availability,
    Clause,
    Cost,
    Lengths,
    Prefix,
    Window,
    Workload,
)
from penstock.workload.sessions import Generator
from tests.sizing.models import LLAMA_8B, shape

MODEL: ModelShape = shape(LLAMA_8B)
PROMISES = {
    "chatbot": (Clause("ttft_s", 95, 3.0), Clause("tpot_s", 95, 0.12)),
    "background_agent": (Clause("ttlt_s", 95, 40.0),),
}


def workload(kind: str, rate: float) -> Workload:
    """Independent requests at a steady rate."""
    return replace(
        PRESETS[kind](),
        slo_class="interactive",
        window=Window("2026-11-02T00:00:00Z", 3600.0),
        arrivals=Arrivals("poisson", rate, rate, rate),
        lengths=Lengths(lognormal(800, 2000, 4000), lognormal(150, 300, 600)),
        sessions=replace(PRESETS[kind]().sessions, turns=fixed(1), fan_out=fixed(1)),
        prefix=Prefix(0.0, 0.0, fixed(1)),
        slo=PROMISES[kind],
        availability=Availability(90.0, 3600.0),
        cost=Cost(max_usd_per_mtok_blended=1000.0),
    )


def planned(kind: str, device: str, rate: float) -> Plan:
    scope = Scope([table()[device]], [precision("int8")])
    plans = size(workload(kind, rate), MODEL, Rates((rate,) * 60, 60.0), scope).plans
    return plans[0]


@pytest.mark.parametrize(("kind", "device"), [("chatbot", "L4"), ("background_agent", "L4")])
def test_n_replicas_hold_and_one_less_does_not(kind: str, device: str) -> None:
    capacity = planned(kind, device, 1.0).capacity
    rate = 0.78 * capacity * 2  # so that two are bought at a headroom of 0.8
    plan = planned(kind, device, rate)
    assert plan.replicas == 2
    load = workload(kind, rate)
    config = EngineConfig(max_num_seqs=plan.max_seqs, max_num_batched_tokens=plan.setup.max_tokens)
    engine = engine_spec(config, MODEL, plan.setup.device, plan.setup.precision)
    kept = {}
    for replicas in (2, 1):
        requests = takewhile(lambda r: r.at_s < 160.0, Generator(load).requests())
        fleet = Fleet(FleetSpec(engine, replicas), requests)
        fleet.run()
        verdict = summarise(as_run(fleet, load, 60.0, 160.0, {}, {})).verdict
        assert verdict is not None
        kept[replicas] = verdict.passed
    assert kept == {2: True, 1: False}
