from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.report.stats import Histogram, Spread, interval, median, percentile

values = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50)


@given(values, st.floats(0, 100))
def test_percentiles_are_those_of_numpy(numbers: list[float], q: float) -> None:
    assert percentile(numbers, q) == pytest.approx(np.percentile(numbers, q), abs=1e-6)


def test_a_spread_of_known_numbers() -> None:
    spread = Spread.of([4.0, 1.0, 2.0, 3.0])
    assert (spread.count, spread.mean, spread.p50) == (4, 2.5, 2.5)
    assert spread.p95 == pytest.approx(3.85)
    assert spread.scaled(1e3).p50 == 2500
    assert median([3, 1, 2]) == 2


def test_nothing_has_no_figures() -> None:
    spread = Spread.of([])
    assert math.isnan(spread.p50)
    assert spread.to_dict() == {"count": 0, "mean": None, "p50": None, "p95": None, "p99": None}


def test_intervals_hold_the_true_percentile_as_often_as_they_say() -> None:
    rng = random.Random(1)
    held = 0
    for _ in range(400):
        found = interval(sorted(rng.random() for _ in range(200)), 90)
        held += found.low <= 0.9 <= found.high
        assert found.low <= found.value <= found.high
    assert 0.92 <= held / 400 <= 0.99
    few = interval([1.0, 2.0], 99)
    assert math.isnan(few.high)
    assert few.to_dict()["high"] is None


def test_a_histogram_keeps_percentiles_within_one_percent() -> None:
    rng = random.Random(2)
    values = [rng.lognormvariate(-3, 1) for _ in range(5000)]
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    for q in (50, 90, 99):
        assert histogram.percentile(q) == pytest.approx(percentile(values, q), rel=0.011)
    assert math.isnan(Histogram().percentile(50))
