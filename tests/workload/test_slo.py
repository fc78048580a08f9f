"""Clauses are judged by their percentile in their worst window; goodput counts whole requests."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.request import FinishReason
from penstock.core.timeline import Timeline
from penstock.workload.definition import Availability, Clause
from penstock.workload.slo import Outcome, judge, quantile

TTFT = Clause("ttft_s", 95, 0.5)
TPOT = Clause("tpot_s", 95, 0.04)


def answered(at: float, ttft: float, tpot: float | None = 0.02) -> Outcome:
    return Outcome(at, True, ttft + 1, ttft, tpot, 0.1, 0.0)


def failed(at: float) -> Outcome:
    return Outcome(at, False, 0.01)


def test_a_clause_passes_at_its_percentile() -> None:
    records = [answered(i, 0.1) for i in range(96)] + [answered(96 + i, 9.0) for i in range(4)]
    verdict = judge([TTFT], records)
    (result,) = verdict.clauses
    assert verdict.passed
    assert result.passed
    assert result.p50_s == pytest.approx(0.1)
    assert result.p99_s == pytest.approx(9)
    assert result.budget_used == pytest.approx(0.8)
    assert verdict.goodput == pytest.approx(0.96)
    assert result.text.startswith("pass  ttft p95 <= 0.5 s")
    worse = [answered(i, 0.1) for i in range(90)] + [answered(90 + i, 9.0) for i in range(10)]
    (late,) = judge([TTFT], worse).clauses
    assert not late.passed
    assert late.budget_used == pytest.approx(2)
    assert "FAIL" in late.text


def test_goodput_wants_every_clause() -> None:
    records = [answered(0, 0.1, 0.02), answered(1, 0.1, 0.09), answered(2, 0.9, 0.02), failed(3)]
    verdict = judge([TTFT, TPOT], records)
    assert (verdict.good, verdict.count) == (1, 4)
    assert judge([], records).good == 3


def test_one_output_token_has_no_tpot_and_misses_nothing() -> None:
    verdict = judge([TPOT], [answered(0, 0.1, None), answered(1, 0.1, 0.01)])
    assert verdict.good == 2
    assert verdict.clauses[0].count == 1


def test_nothing_measured_is_no_pass() -> None:
    verdict = judge([TTFT], [failed(0)])
    assert not verdict.passed
    assert math.isnan(verdict.clauses[0].value_s)
    with pytest.raises(ValueError, match="no records"):
        judge([TTFT], [])


def test_the_worst_window_decides() -> None:
    """Good on average, bad for one minute: a clause over windows of a minute must fail."""
    records = [answered(i * 1.0, 2.0 if 120 <= i < 180 else 0.1) for i in range(1260)]
    assert judge([TTFT], records).passed
    (result,) = judge([Clause("ttft_s", 95, 0.5, 60.0)], records).clauses
    assert not result.passed
    assert result.worst_window_s == 120
    assert result.windows == 20


def test_availability_has_its_budget() -> None:
    records = [answered(i, 0.1) for i in range(997)] + [failed(997 + i) for i in range(3)]
    verdict = judge([TTFT], records, Availability(99.5, 86400.0))
    assert verdict.availability is not None
    assert verdict.availability.percent == pytest.approx(99.7)
    assert verdict.availability.budget_used == pytest.approx(0.6)
    assert verdict.passed
    assert not judge([TTFT], records, Availability(99.9, 86400.0)).passed
    none = judge([], records, Availability(100.0, 86400.0)).availability
    assert none is not None
    assert none.budget_used == math.inf


def test_timelines_of_the_engine_are_records() -> None:
    """One definition of TTFT in the house."""
    line = Timeline("r", 1.0, 1.1, 1.2, 1.5, 2.5, 2.5, 0.3, 8, 5, 0, 0, FinishReason.LENGTH)
    stopped = Timeline("s", 2.0, 2.1, None, None, None, 2.2, None, 8, 0, 0, 0, FinishReason.ABORT)
    clauses = [
        Clause("ttft_s", 50, 0.5), Clause("tpot_s", 50, 0.25), Clause("itl_s", 50, 0.3),
        Clause("ttlt_s", 50, 1.5), Clause("queue_s", 50, 0.11),
    ]  # fmt: skip
    verdict = judge(clauses, [line, stopped])
    assert [c.value_s for c in verdict.clauses] == pytest.approx([0.5, 0.25, 0.3, 1.5, 0.1])
    assert (verdict.good, verdict.count) == (1, 2)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50), st.floats(0, 100))
def test_quantile_is_numpy_s(values: list[float], q: float) -> None:
    import numpy as np

    assert quantile(sorted(values), q) == pytest.approx(float(np.percentile(values, q)), abs=1e-9)
