"""Replicas for a curve of rates."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.sizing.demand import (
    Rates,
    averaged,
    rates_of,
    replicas_for,
    scale,
    spares_for,
    spread_out,
    waits,
)
from penstock.workload.archetypes import background_agent, chatbot, data_processor
from penstock.workload.definition import Overload


def test_n_is_the_rate_over_capacity_and_headroom() -> None:
    assert replicas_for(90, 10, 0.8) == 12
    assert replicas_for(80, 10, 0.8) == 10
    assert replicas_for(0, 10, 0.8) == 1


@given(st.integers(1, 300), st.floats(0.5, 0.99999))
def test_spares_bring_the_wanted_availability(replicas: int, wanted: float) -> None:
    spares = spares_for(replicas, wanted, 0.99)
    assert _up(replicas, replicas + spares) >= wanted
    assert spares == 0 or _up(replicas, replicas + spares - 1) < wanted


def _up(needed: int, total: int) -> float:
    return sum(
        math.comb(total, k) * 0.99**k * 0.01 ** (total - k) for k in range(needed, total + 1)
    )


def test_sessions_become_calls() -> None:
    rates = rates_of(chatbot())
    assert rates.mean == pytest.approx(4 * chatbot().calls_per_session, rel=0.02)
    assert rates.peak == pytest.approx(20 * chatbot().calls_per_session)
    assert rates_of(chatbot(), [1.0, 3.0]).peak == pytest.approx(3 * chatbot().calls_per_session)


def test_only_batch_work_in_a_queue_is_spread() -> None:
    assert [waits(w()) for w in (chatbot, background_agent, data_processor)] == [False, False, True]
    rates = rates_of(data_processor())
    late = spread_out(data_processor(), rates)
    assert late.peak < rates.peak / 2
    total, moved = math.fsum(rates.calls_per_s), math.fsum(late.calls_per_s)
    assert moved == pytest.approx(total)
    short = replace(data_processor(), overload=Overload("queue", 600.0))
    assert late.peak < spread_out(short, rates).peak <= rates.peak
    assert spread_out(chatbot(), rates_of(chatbot())) == rates_of(chatbot())


@given(st.lists(st.floats(0, 100), min_size=1, max_size=40), st.integers(1, 50))
def test_averages_are_means(values: list[float], span: int) -> None:
    width = min(span, len(values))
    naive = [sum(values[i : i + width]) / width for i in range(len(values) - width + 1)]
    assert averaged(values, span) == pytest.approx(naive, abs=1e-6)


def test_a_fleet_that_follows_its_load() -> None:
    curve = Rates((8.0, 8.0, 80.0, 8.0), 60.0)
    slow = scale(curve, 10.0, 0.8, 120.0, 10, to_zero=False)
    assert slow.buffer == 9
    assert slow.mean_replicas == 10
    fast = scale(Rates((8.0, 16.0, 80.0, 72.0), 60.0), 10.0, 0.8, 30.0, 10, to_zero=False)
    assert fast.buffer == 8
    idle = scale(Rates((0.0, 0.0, 80.0, 0.0), 60.0), 10.0, 0.8, 60.0, 10, to_zero=True)
    assert (idle.buffer, idle.mean_replicas) == (0, 2.5)
    assert idle.utilisation == pytest.approx(0.8)
