"""Rates and gaps come out as defined, and contradictions are refused by name."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import ConfigError
from penstock.workload.archetypes import PRESETS, chatbot
from penstock.workload.arrivals import rate_curve, rate_values, summary, times, windowed_rates
from penstock.workload.definition import Arrivals, Season, Spike, Window, Workload


def workload(arrivals: Arrivals, duration_s: float = 86400.0) -> Workload:
    return replace(chatbot(), arrivals=arrivals, window=Window("2026-11-02", duration_s))


def flat(process: str, rate: float, cv: float | None = None) -> Arrivals:
    return Arrivals(process, rate, rate, rate, cv=cv)


def spread(gaps: list[float]) -> float:
    mean = fmean(gaps)
    return float(fmean((gap - mean) ** 2 for gap in gaps) ** 0.5 / mean)


@pytest.mark.parametrize(
    ("arrivals", "cv"),
    [
        (flat("poisson", 10.0), 1.0),
        (flat("gamma", 10.0, 1.5), 1.5),
        (flat("gamma", 10.0, 0.4), 0.4),
        (flat("constant", 10.0), 0.0),
    ],
    ids=["poisson", "bursty", "smooth", "constant"],
)
def test_cv_and_mean_are_within_five_percent(arrivals: Arrivals, cv: float) -> None:
    defined = workload(arrivals, 4000.0)
    found = list(times(defined, rate_curve(defined, 3), 3))
    assert found == sorted(found)
    assert 0 <= found[0] < found[-1] < 4000
    assert len(found) / 4000 == pytest.approx(10, rel=0.05)
    assert spread([b - a for a, b in pairwise(found)]) == pytest.approx(cv, rel=0.05, abs=1e-6)


DIURNAL = Arrivals("gamma", 30.0, 80.0, 150.0, cv=1.5, seasons=(Season(86400.0, 1.0, 50400.0),))


def test_a_diurnal_peak_and_mean_are_within_five_percent() -> None:
    """Must hold 1: measured over rate windows, arrivals and not only the curve."""
    season = (Season(10_000.0, 1.0, 5000.0),)
    arrivals = replace(DIURNAL, rate_window_s=100.0, seasons=season)
    defined = workload(arrivals, 10_000.0)
    found = list(times(defined, rate_curve(defined, 1), 1))
    mean, p95, peak = summary(windowed_rates(found, 10_000.0, 100.0))
    assert mean == pytest.approx(30, rel=0.05)
    assert p95 == pytest.approx(80, rel=0.05)
    assert peak == pytest.approx(150, rel=0.05)
    assert peak / mean == pytest.approx(5, rel=0.05)


def test_seasons_say_when() -> None:
    rates = rate_curve(workload(DIURNAL), 0)
    assert abs(rates.index(max(rates)) * 60 - 50400) < 120
    assert rates.index(min(rates)) * 60 < 50400 - 40000 or rates.index(min(rates)) * 60 > 80000


def test_two_seasons_share_by_their_amplitudes() -> None:
    seasons = (Season(86400.0, 1.0, 50400.0), Season(604800.0, 0.5, 216000.0))
    rates = rate_curve(workload(replace(DIURNAL, seasons=seasons), 604800.0), 0)
    days = [max(rates[d * 1440 : (d + 1) * 1440]) for d in range(7)]
    assert days[2] == max(days)
    assert days[6] < days[2] / 1.5
    assert summary(rates) == pytest.approx((30, 80, 150), rel=0.01)


def test_a_spike_comes_at_its_time_and_changes_no_total() -> None:
    spikes = (Spike(10_000.0, 600.0, 4.0),)
    rates = rate_curve(workload(replace(DIURNAL, spikes=spikes)), 0)
    assert rates[170] == pytest.approx(120, rel=0.25)
    assert rates[160] < 60
    assert summary(rates) == pytest.approx((30, 80, 150), rel=0.01)


def test_bursts_have_their_share_of_the_time() -> None:
    arrivals = Arrivals("on_off", 4.0, 30.0, 60.0, on_s=1800.0, off_s=7200.0)
    rates = rate_curve(workload(arrivals, 30 * 86400.0), 5)
    off = rates.count(0.0) / len(rates)
    assert off == pytest.approx(0.8, abs=0.01)
    assert summary(rates) == pytest.approx((4, 30, 60), rel=0.01)
    runs = sum(a == 0 < b for a, b in pairwise(rates))
    assert runs == pytest.approx(30 * 86400 / 9000, rel=0.1)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_their_rates(name: str) -> None:
    defined = PRESETS[name]()
    wanted = (
        defined.arrivals.mean_per_s,
        defined.arrivals.p95_per_s,
        defined.arrivals.peak_per_s,
    )
    assert summary(rate_curve(defined, 0)) == pytest.approx(wanted, rel=0.03)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.1, 50), st.floats(1, 30), st.floats(1, 20), st.integers(20, 400))
def test_values_hold_what_is_asked_or_it_is_refused(
    mean: float, p95_ratio: float, peak_ratio: float, count: int
) -> None:
    p95 = mean * p95_ratio
    arrivals = Arrivals("poisson", mean, p95, p95 * peak_ratio)
    try:
        values = rate_values(arrivals, count)
    except ConfigError:
        clearly_possible = 0.1 * p95 + 3 * p95 * peak_ratio / count < mean < 0.9 * p95
        assert not clearly_possible
        return
    assert values == sorted(values)
    assert min(values) >= 0
    assert values[-1] == pytest.approx(p95 * peak_ratio)
    assert fmean(values) == pytest.approx(mean, rel=0.03)


@pytest.mark.parametrize(
    ("arrivals", "duration_s", "param"),
    [
        (Arrivals("poisson", 1.0, 50.0, 60.0), 86400.0, "mean_per_s"),
        (Arrivals("poisson", 4.0, 5.0, 9.0), 300.0, "rate_window_s"),
        (Arrivals("poisson", 4.0, 5.0, 9.0, rate_window_s=0.01), 86400.0, "rate_window_s"),
        (replace(DIURNAL, spikes=(Spike(0.0, 20_000.0, 4.9),)), 86400.0, "spikes[0].factor"),
        (
            Arrivals("on_off", 1.0, 5.0, 99.0, on_s=60.0, off_s=6000.0),
            864000.0,
            "p95_per_s",
        ),
    ],
)
def test_contradictions_are_refused_by_name(
    arrivals: Arrivals, duration_s: float, param: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        rate_curve(workload(arrivals, duration_s), 0)
    assert caught.value.param == f"arrivals.{param}"
    assert caught.value.cure
