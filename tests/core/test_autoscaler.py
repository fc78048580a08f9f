from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.autoscaler import Autoscaler, Scaling
from penstock.errors import ConfigError


def test_it_follows_the_load_within_its_bounds() -> None:
    scaler = Autoscaler(Scaling(1, 10, buffer=1, target_concurrency=4, down_window_s=60))
    assert scaler.decide(0, 0) == 1
    assert scaler.decide(1, 8) == 3
    assert scaler.decide(2, 400) == 10
    assert scaler.decide(30, 0) == 10, "within the window of the peak"
    assert scaler.decide(61, 0) == 10
    assert scaler.decide(91, 0) == 1


def test_a_short_peak_does_not_start_replicas_in_a_long_window() -> None:
    scaler = Autoscaler(Scaling(1, 10, target_concurrency=1, up_window_s=10))
    seen = [scaler.decide(t, 1 if t < 5 or t == 9 else 6) for t in range(25)]
    assert seen[:19] == [1] * 19
    assert seen[20] == 6, "10 s after the last quiet moment"


def test_down_only_to_what_was_wanted_in_the_window() -> None:
    scaler = Autoscaler(Scaling(0, 10, target_concurrency=1, down_window_s=10))
    for t, load in ((0, 8), (5, 3), (8, 1)):
        assert scaler.decide(t, load) == 8
    assert scaler.decide(15.5, 0) == 3
    assert scaler.decide(30, 0) == 0


@given(
    st.lists(st.tuples(st.floats(0.1, 20), st.integers(0, 50)), max_size=60),
    st.integers(0, 3),
    st.floats(0, 15),
    st.floats(1, 60),
)
def test_it_never_flaps(
    loads: list[tuple[float, int]], buffer: int, up_s: float, down_s: float
) -> None:
    scaler = Autoscaler(Scaling(1, 12, buffer, 4.0, up_s, down_s))
    now, before, changes = 0.0, 1, []
    for passed, load in loads:
        now += passed
        count = scaler.decide(now, load)
        assert 1 <= count <= 12
        if count != before:
            changes.append((now, count > before))
        before = count
    for (at, up), (later, again) in pairwise(changes):
        if up and not again:
            assert later - at >= down_s * 0.999, "stopped what was just started"


@pytest.mark.parametrize(
    ("field", "value"),
    [("min_replicas", 5), ("max_replicas", 0), ("buffer", -1), ("target_concurrency", 0.0)],
)
def test_what_contradicts_is_refused(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=field) as caught:
        Scaling(**({"max_replicas": 4} | {field: value}))  # type: ignore[arg-type]
    assert caught.value.param in (field, "min_replicas")
