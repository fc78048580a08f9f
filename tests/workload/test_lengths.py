"""Distributions go through the quantiles that define them, and impossible ones are named."""

from __future__ import annotations

from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.workload.draws import Draws
from penstock.workload.lengths import Distribution, draw_pair, empirical

LOGNORMAL = Distribution(p50=1200.0, p95=8000.0, max=32000.0)
EMPIRICAL = Distribution(kind="empirical", quantiles=((0, 10), (0.5, 100), (0.95, 900), (1, 4000)))


def test_a_lognormal_goes_through_its_median_and_p95() -> None:
    assert LOGNORMAL.quantile(0.5) == pytest.approx(1200)
    assert LOGNORMAL.quantile(0.95) == pytest.approx(8000)
    assert LOGNORMAL.quantile(1) == 32000
    assert LOGNORMAL.quantile(0.9999999) == 32000


@pytest.mark.parametrize(
    "distribution",
    [
        LOGNORMAL,
        EMPIRICAL,
        Distribution(p50=30.0, p95=600.0, max=3600.0, min=5.0),
        Distribution(kind="uniform", min=5.0, max=9.0),
        Distribution(kind="fixed", value=3.0),
        Distribution(p50=4.0, p95=4.0, max=4.0),
    ],
    ids=lambda d: d.kind,
)
def test_the_mean_is_that_of_the_draws(distribution: Distribution) -> None:
    assert list(distribution.problems()) == []
    count = 20_000
    steps = [distribution.quantile((i + 0.5) / count) for i in range(count)]
    assert distribution.average() == pytest.approx(fmean(steps), rel=2e-3)


@given(st.floats(0, 1), st.floats(0, 1))
def test_quantiles_rise(a: float, b: float) -> None:
    low, high = sorted((a, b))
    for distribution in (LOGNORMAL, EMPIRICAL):
        assert distribution.quantile(low) <= distribution.quantile(high) + 1e-9


def test_drawn_quantiles_are_within_five_percent() -> None:
    draws = Draws(11)
    values = sorted(LOGNORMAL.draw(draws) for _ in range(30_000))
    for share in (0.1, 0.5, 0.9, 0.95, 0.99):
        assert values[int(share * 30_000)] == pytest.approx(LOGNORMAL.quantile(share), rel=0.05)


@pytest.mark.parametrize(
    ("broken", "name", "words"),
    [
        (Distribution(mean=500.0), "p50", "only a mean"),
        (Distribution(p50=500.0, max=900.0), "p95", "needs p95"),
        (Distribution(p50=500.0, p95=400.0, max=900.0), "p95", "below p50"),
        (Distribution(p50=500.0, p95=600.0, max=550.0), "max", "below p95"),
        (Distribution(p50=0.0, p95=6.0, max=9.0), "p50", "no lognormal"),
        (Distribution(kind="fixed", value=3.0, p95=4.0), "p95", "does not belong"),
        (Distribution(kind="empirical", quantiles=((0.1, 1), (1, 2))), "quantiles", "share 0"),
        (
            Distribution(kind="empirical", quantiles=((0, 5), (0.5, 3), (1, 9))),
            "quantiles",
            "not rising",
        ),
    ],
)
def test_impossible_distributions_are_named(broken: Distribution, name: str, words: str) -> None:
    (problem,) = broken.problems()
    assert problem.field == name
    assert words in problem.cause
    assert problem.cure


def test_empirical_keeps_the_quantiles_of_what_was_measured() -> None:
    values = [LOGNORMAL.quantile((i + 0.5) / 5000) for i in range(5000)]
    fitted = empirical(values)
    assert list(fitted.problems()) == []
    for share in (0.01, 0.5, 0.95, 0.99):
        assert fitted.quantile(share) == pytest.approx(LOGNORMAL.quantile(share), rel=0.02)
    assert fitted.average() == pytest.approx(fmean(values), rel=0.05)
    assert empirical([4, 4, 4]).kind == "fixed"
    with pytest.raises(ValueError, match="no values"):
        empirical([])


@pytest.mark.parametrize("correlation", [-0.7, 0.0, 0.6, 1.0])
def test_pairs_keep_their_margins_and_lean_as_told(correlation: float) -> None:
    draws = Draws(2)
    output = Distribution(p50=180.0, p95=1200.0, max=4000.0)
    pairs = [
        draw_pair(LOGNORMAL, output, correlation, draws, draws.normal()) for _ in range(20_000)
    ]
    inputs, outputs = (sorted(values) for values in zip(*pairs, strict=True))
    assert inputs[10_000] == pytest.approx(1200, rel=0.05)
    assert outputs[10_000] == pytest.approx(180, rel=0.05)
    above = fmean((i > 1200) == (o > 180) for i, o in pairs)
    assert above == pytest.approx(0.5 + _concordance(correlation), abs=0.02)


def _concordance(correlation: float) -> float:
    """Of two normals on the same side of their medians (Sheppard 1899): 1/2 + asin(r) / pi."""
    from math import asin, pi

    return asin(correlation) / pi
