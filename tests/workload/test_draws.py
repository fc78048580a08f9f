"""The source is a function of its names, and its shapes have their moments."""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import NormalDist, fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine import random as engine_random
from penstock.workload.draws import STRATA, Draws, inverse_normal, mix, normal_cdf, spread_pair


def test_the_same_names_give_the_same_numbers_and_others_differ() -> None:
    first = [Draws(7, 3, 5).uniform() for _ in range(2)]
    assert first[0] == first[1]
    assert len({Draws(7, 3, n).bits() for n in range(500)}) == 500
    assert Draws(7, 3, 5).bits() != Draws(8, 3, 5).bits()


def test_mix_is_the_engine_s() -> None:
    """One SplitMix64 in the house: drawn places agree with the engine's vectorised twin."""
    stream = 1234567
    mine = (mix(stream + 1 * 0x9E3779B97F4A7C15) >> 11) * 2.0**-53
    theirs = engine_random.uniforms(np.array([stream], np.uint64), np.array([0], np.int64))
    assert mine == theirs[0]


@given(st.floats(1e-12, 1 - 1e-12))
def test_inverse_normal_is_the_inverse(p: float) -> None:
    assert inverse_normal(p) == pytest.approx(NormalDist().inv_cdf(p), rel=1e-9, abs=1e-12)
    assert normal_cdf(inverse_normal(p)) == pytest.approx(p, rel=1e-9)


@pytest.mark.parametrize("shape", [0.2, 0.44, 1.0, 4.0, 30.0])
def test_gamma_has_its_mean_and_variance(shape: float) -> None:
    draws = Draws(1, 2)
    values = [draws.gamma(shape) for _ in range(40_000)]
    mean = fmean(values)
    assert mean == pytest.approx(shape, rel=0.04)
    assert fmean((v - mean) ** 2 for v in values) == pytest.approx(shape, rel=0.08)


def test_exponential_and_normal() -> None:
    draws = Draws(5)
    assert fmean(draws.exponential() for _ in range(40_000)) == pytest.approx(1, rel=0.03)
    normals = [draws.normal() for _ in range(40_000)]
    assert fmean(normals) == pytest.approx(0, abs=0.02)
    assert fmean(v * v for v in normals) == pytest.approx(1, rel=0.03)


def test_spread_pairs_are_even_and_their_order_is_not() -> None:
    pairs = [spread_pair(3, number) for number in range(4 * STRATA)]
    for column in zip(*pairs, strict=True):
        cells = sorted(int(value * STRATA) for value in column[:STRATA])
        assert cells == list(range(STRATA))
        assert abs(fmean(a * b for a, b in pairwise(v - 0.5 for v in column))) * 12 < 0.1
    quarters = [(a < 0.5, b < 0.5) for a, b in pairs]
    assert {quarters.count(q) for q in set(quarters)} == {STRATA}
    assert spread_pair(3, 5) != spread_pair(4, 5)


def test_pick_follows_the_weights() -> None:
    draws = Draws(9)
    picks = [draws.pick([1.0, 1.0, 4.0]) for _ in range(20_000)]
    assert picks.count(0) / len(picks) == pytest.approx(0.25, abs=0.02)
    assert picks.count(1) == 0
    assert math.isclose(picks.count(2) / len(picks), 0.75, abs_tol=0.02)


def test_neighbouring_numbers_do_not_lean_on_each_other() -> None:
    draws = Draws(3)
    values = [draws.uniform() - 0.5 for _ in range(20_000)]
    assert fmean(a * b for a, b in pairwise(values)) * 12 == pytest.approx(0, abs=0.03)
