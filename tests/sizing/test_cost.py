"""A bill against a hand example."""

from __future__ import annotations

import math

import pytest

from penstock.sizing.cost import bill


def test_a_hand_example() -> None:
    """3.60 USD/h for 10 calls/s of 900 + 100 tokens: 0.0001 USD a call, 10 Mtok in 1000 s."""
    found = bill(3.6, 10.0, 900.0, 100.0, 0.25, 0.8)
    assert found.per_mtok_blended == pytest.approx(0.1)
    assert found.per_mtok_input == pytest.approx(0.0001 * 0.25 / 900 * 1e6)
    assert found.per_mtok_output == pytest.approx(0.0001 * 0.75 / 100 * 1e6)
    assert found.per_good_request == pytest.approx(0.000125)
    paid = found.per_mtok_input * 900 + found.per_mtok_output * 100
    assert paid / 1000 == pytest.approx(found.per_mtok_blended)


def test_thirty_thousand_in_and_two_thousand_out_a_second() -> None:
    """REQUIREMENTS C11: an H100 at about 4.5 USD/h serves Qwen3-8B for about 4 cents a Mtok."""
    found = bill(4.5, 1.0, 30_000.0, 2_000.0, 0.5, 1.0)
    assert found.per_mtok_blended == pytest.approx(0.04, rel=0.05)


def test_no_good_request_has_no_price() -> None:
    assert bill(1.0, 1.0, 10.0, 10.0, 0.5, 0.0).per_good_request == math.inf
