from __future__ import annotations

from dataclasses import replace

from penstock.core.autoscaler import Scaling
from penstock.report.run import summarise
from penstock.sim.fleet import Fleet, FleetSpec
from penstock.sim.report import as_run, usage_rows
from penstock.workload.archetypes import PRESETS
from penstock.workload.definition import Clause
from tests.sim.parts import engine, mixed


def test_a_fleet_is_judged_as_a_run() -> None:
    scaling = Scaling(1, 3, target_concurrency=4.0)
    fleet = Fleet(FleetSpec(engine(), 1, scaling, 1.0, keep_gaps=False), mixed(100, 20.0))
    fleet.run()
    promises = (Clause("ttft_s", 50, 5.0), Clause("itl_s", 99, 1e-6))
    workload = replace(PRESETS["chatbot"](), slo=promises)
    summary = summarise(as_run(fleet, workload, 1.0, 4.0, {}, {}))
    assert 0 < summary.requests < 100
    assert summary.verdict is not None
    assert [result.passed for result in summary.verdict.clauses] == [True, False]
    assert summary.metrics["itl_s"].count == fleet.gaps.total
    assert summary.metrics["queue_s"].count == summary.answered
    rows = dict(usage_rows(fleet, 2.0))
    assert "USD per M tokens" in rows["cost"]
    assert "3 at most" in rows["replicas"]
    assert "cost" not in dict(usage_rows(fleet, None))
