from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.report.stats import Spread, median, percentile

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
