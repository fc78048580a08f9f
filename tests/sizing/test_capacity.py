"""What a replica serves inside the SLO: limits, monotony, and queueing theory where it is exact."""

from __future__ import annotations

from dataclasses import replace

import pytest

from penstock.sizing.capacity import Demand, Limits, Replica, demand_of
from penstock.sizing.hardware import table
from penstock.sizing.precision import PRECISIONS
from penstock.sizing.roofline import Roofline
from penstock.workload.archetypes import chatbot
from penstock.workload.definition import Clause
from tests.sizing.models import LLAMA_8B, shape

H100 = table()["H100"]
CHAT = demand_of(chatbot())
LOOSE = (Clause("ttft_s", 95, 60.0),)


def replica(demand: Demand = CHAT, pp: int = 1, kv_tokens: int = 4_000_000) -> Replica:
    model = Roofline(shape(LLAMA_8B), PRECISIONS["bf16"], H100, 1, pp)
    return Replica(model, demand, Limits(8192, 1024, kv_tokens))


def test_the_sample_has_the_definition_s_lengths() -> None:
    lengths = chatbot().lengths
    assert CHAT.mean_input == pytest.approx(lengths.input_tokens.average(), rel=0.05)
    assert CHAT.mean_output == pytest.approx(lengths.output_tokens.average(), rel=0.1)
    assert CHAT.mean_new == pytest.approx(0.45 * CHAT.mean_input, rel=0.01)


def test_little_s_law_holds_at_the_operating_point() -> None:
    load = replica().at(5.0)
    assert load.stable
    assert load.running == pytest.approx(5 * CHAT.mean_output * load.step_s, rel=0.02)


def test_load_costs_latency_until_nothing_holds() -> None:
    one = replica()
    p95 = []
    for rate in (0.01, 3.0, 6.0, 9.0):
        load = one.at(rate)
        assert load.stable
        p95.append(one.verdict(load, LOOSE).clauses[0].p95_s)
    assert p95 == sorted(p95)
    assert not one.at(200.0).stable
    assert not one.holds(200.0, LOOSE)


def test_capacity_is_the_last_rate_that_holds() -> None:
    one = replica()
    clauses = chatbot().slo
    capacity = one.capacity(clauses)
    assert capacity > 1
    assert one.holds(capacity, clauses)
    assert not one.holds(capacity * 1.02, clauses)
    assert one.capacity(LOOSE) > capacity
    assert one.capacity((Clause("ttft_s", 95, 1e-4),)) == 0.0


def test_a_small_cache_bounds_what_runs() -> None:
    small = replica(kv_tokens=10_000)
    assert small.most_running < replica().most_running
    assert small.capacity(LOOSE) < replica().capacity(LOOSE)


def test_reuse_raises_capacity() -> None:
    fresh = demand_of(replace(chatbot(), prefix=replace(chatbot().prefix, reuse_actual=0.0)))
    assert replica(fresh).capacity(chatbot().slo) < replica().capacity(chatbot().slo)


def test_waiting_is_that_of_an_m_d_1_queue() -> None:
    """One output token and equal prompts: service is constant, and the mean wait of M/D/1 is
    busy / (1 - busy) / 2 services (Pollaczek, Khinchine)."""
    demand = Demand(((4000, 4000, 1),) * 256, 1.0)
    one = replica(demand)
    service = one.at(1e-6).outcomes[0].ttft_s
    assert service is not None
    rate = 0.6 / service
    outcomes = one.at(rate).outcomes
    waits = [outcome.queue_s or 0.0 for outcome in outcomes]
    assert sum(waits) / len(waits) == pytest.approx(0.6 / 0.4 / 2 * service, rel=0.12)


def test_pipeline_stages_serve_more_at_the_same_latency() -> None:
    two, one = replica(pp=2), replica()
    assert two.capacity(LOOSE) == pytest.approx(2 * one.capacity(LOOSE), rel=0.2)
