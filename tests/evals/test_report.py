from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from penstock.evals.divergence import Scores
from penstock.evals.report import Report, figures
from penstock.evals.storage import Storage


def scores(**columns: Any) -> Scores:
    """Four tokens, two of them after a long context."""
    plain: dict[str, Any] = {
        "seen": np.array([1, 15, 16, 5000]),
        "ids": np.array([3, 7, 3, 3]),
        "kl": np.array([0.1, 0.2, 0.3, 0.8]),
        "reference_nll": np.array([1.0, 2.0, 3.0, 4.0]),
        "candidate_nll": np.array([1.5, 2.5, 3.5, 4.5]),
        "same_top": np.array([True, False, True, True]),
        "regret": np.array([0.0, 0.02, 0.0, 0.0]),
    }
    return Scores(**(plain | columns))


def report(kl: float = 0.1, agreement: float = 0.9, **bounds: float) -> Report:
    total, buckets = figures(scores(), lambda token: token)
    parts = {"a": Storage(10, 20), "b": Storage(30, 20)}
    chosen = replace(total, kl_mean=kl, agreement=agreement)
    return Report({"command": "penstock eval"}, chosen, buckets, parts, parts, **bounds)


def test_figures_over_all_and_by_context() -> None:
    total, buckets = figures(scores(), lambda token: token)  # token 3 has 3 bytes, 7 has 7
    assert total.tokens == 4
    assert (total.kl_mean, total.kl_median) == (pytest.approx(0.35), pytest.approx(0.25))
    assert total.kl_p99 == pytest.approx(np.quantile([0.1, 0.2, 0.3, 0.8], 0.99))
    assert total.agreement == 0.75
    assert total.regret == pytest.approx(0.005)
    assert total.reference_perplexity == pytest.approx(math.exp(2.5))
    assert total.candidate_perplexity == pytest.approx(math.exp(3.0))
    assert total.reference_bits_per_byte == pytest.approx(10 / math.log(2) / 16)
    assert total.candidate_bits_per_byte == pytest.approx(12 / math.log(2) / 16)
    assert {name: part.tokens for name, part in buckets.items()} == {
        "1-15": 2,
        "16-63": 1,
        "4096-16383": 1,
    }
    assert buckets["1-15"].candidate_bits_per_byte == pytest.approx(4 / math.log(2) / 10)


@pytest.mark.parametrize(
    ("bounds", "named"),
    [
        ({}, []),
        ({"max_kl": 0.1, "min_agreement": 0.9}, []),
        ({"max_kl": 0.0999}, ["--max-kl"]),
        ({"max_kl": 0.0, "min_agreement": 0.91}, ["--max-kl", "--min-agreement"]),
    ],
)
def test_the_gate(bounds: dict[str, float], named: list[str]) -> None:
    failures = report(**bounds).failures
    assert len(failures) == len(named)
    assert all(flag in failure for flag, failure in zip(named, failures, strict=True))


def test_what_is_no_number_passes_no_gate() -> None:
    assert report(kl=math.nan, max_kl=10.0).failures
    broken, _ = figures(scores(kl=np.array([0, 0, 0, math.nan])), lambda token: 1)
    assert math.isnan(broken.kl_mean)
    assert math.isnan(broken.kl_p99)


def test_json_is_strict() -> None:
    data = report(kl=math.nan, max_kl=1.0).to_dict()
    again = json.loads(json.dumps(data, allow_nan=False))
    assert again["total"]["kl_mean"] is None
    assert again["candidate_storage"]["total"] == {
        "weights": 40,
        "bytes": 40,
        "bits_per_weight": 8.0,
    }
    assert again["gate"]["failures"] == ["mean KL nan is above --max-kl 1"]
    assert again["command"] == "penstock eval"


def test_without_any_bytes_there_are_no_bits_a_byte() -> None:
    total, _ = figures(scores(), lambda token: 0)
    assert math.isnan(total.candidate_bits_per_byte)
