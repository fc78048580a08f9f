"""Plans: feasible ones ranked by the workload's merit, others refused with clause and distance."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from penstock.sizing.capacity import Limits, Replica, demand_of
from penstock.sizing.demand import rates_of
from penstock.sizing.hardware import choose, table
from penstock.sizing.precision import PRECISIONS
from penstock.sizing.roofline import Roofline
from penstock.sizing.sizer import Answer, Scope, size
from penstock.workload.archetypes import chatbot, data_processor
from penstock.workload.definition import MERITS, Clause, Cost, Window, Workload
from tests.sizing.models import LLAMA_8B, LLAMA_70B, shape

DAY = Window("2026-11-02", 86400.0)
CHAT = replace(chatbot(), window=DAY, cost=Cost(max_usd_per_mtok_blended=9.0))
ROOMY = Scope(
    choose(["A100", "H100", "B200", "L4"], table()),
    [PRECISIONS["bf16"], PRECISIONS["int4"]],
    (1, 2),
)


def answer(workload: Workload, scope: Scope = ROOMY, big: bool = False) -> Answer:
    model = shape(LLAMA_70B if big else LLAMA_8B)
    return size(workload, model, rates_of(workload), scope)


@pytest.fixture(scope="module")
def by_merit() -> dict[str, Answer]:
    return {merit: answer(replace(CHAT, figure_of_merit=merit)) for merit in MERITS}


def test_the_same_sweep_has_different_winners(by_merit: dict[str, Answer]) -> None:
    """REQUIREMENTS A1."""
    winners = {found.plans[0].setup.name for found in by_merit.values()}
    assert len(winners) >= 2
    assert len({len(found.plans) for found in by_merit.values()}) == 1
    for merit, found in by_merit.items():
        merits = [plan.merit for plan in found.plans]
        assert merits == sorted(merits, reverse=merit != "ttlt_p95_s")


def test_n_replicas_hold_the_peak_and_their_clauses(by_merit: dict[str, Answer]) -> None:
    for plan in by_merit["mtok_per_usd"].plans:
        assert plan.replicas == math.ceil(plan.needed / (plan.capacity * 0.8) - 1e-9)
        assert plan.verdict.passed
        assert plan.load.calls_per_s * plan.replicas >= plan.needed * 0.999
        if plan.replicas > 1:
            assert plan.needed / (plan.replicas - 1) > plan.capacity * 0.8
        assert plan.fixed.per_hour >= plan.scaled.per_hour


def test_the_budget_of_the_plan_has_the_plan_s_capacity(by_merit: dict[str, Answer]) -> None:
    plan = by_merit["mtok_per_usd"].plans[0]
    setup = plan.setup
    model = Roofline(shape(LLAMA_8B), setup.precision, setup.device, setup.tp, setup.pp)
    limits = Limits(setup.max_tokens, plan.max_seqs, plan.memory.kv_tokens)
    again = Replica(model, demand_of(CHAT), limits)
    assert again.capacity(CHAT.slo) == plan.capacity


def test_nothing_feasible_names_the_clause_and_how_far() -> None:
    strict = replace(CHAT, slo=(Clause("ttft_s", 95, 0.001),))
    found = answer(strict)
    assert found.plans == ()
    nearest = found.refusals[0]
    assert "misses ttft p95 <= 0.001 s even when idle" in nearest.reason
    assert "% over" in nearest.reason
    assert nearest.by > 1
    assert [r.by for r in found.refusals] == sorted(r.by for r in found.refusals)


def test_a_ceiling_on_cost_refuses() -> None:
    found = answer(replace(CHAT, cost=Cost(max_usd_per_mtok_blended=1e-6)))
    assert found.plans == ()
    assert any("USD per M blended tokens" in r.reason for r in found.refusals)


def test_memory_and_context_refuse() -> None:
    found = answer(CHAT, Scope(choose(["L4"], table()), [PRECISIONS["bf16"]]), big=True)
    assert "of memory are missing" in found.refusals[0].reason
    short = replace(shape(LLAMA_8B), max_positions=4096)
    refused = size(CHAT, short, rates_of(CHAT), ROOMY)
    assert refused.plans == ()
    assert "context is 4,096 tokens" in refused.refusals[0].reason


def test_the_regime_follows_the_devices() -> None:
    assert answer(CHAT).regime == "efficiency-bound"
    small = Scope(choose(["L4"], table()), [PRECISIONS["bf16"]], (1, 8))
    assert answer(CHAT, small, big=True).regime == "capability-bound"


def test_the_price_that_counts_is_chosen() -> None:
    full = answer(CHAT).plans
    spot = answer(CHAT, replace(ROOMY, price="spot")).plans
    for plan in spot:
        (same,) = [p for p in full if p.setup == plan.setup]
        assert plan.fixed.per_hour == pytest.approx(same.fixed.per_hour * 0.4, rel=0.01)


def test_batch_work_pays_for_its_mean_and_not_for_its_peak() -> None:
    work = replace(data_processor(), cost=Cost(max_usd_per_mtok_blended=9.0))
    found = size(work, shape(LLAMA_8B), rates_of(work), ROOMY)
    for plan in found.plans:
        assert plan.spares == 0
        assert plan.scaling.buffer == 0
        assert plan.scaling.mean_replicas < plan.replicas / 3
