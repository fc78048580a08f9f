from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from penstock.errors import ConfigError
from penstock.report.run import Run, from_json, summarise, summary_dict, to_json
from penstock.workload.definition import Availability, Clause
from tests.report.test_records import record


def run(count: int = 20) -> Run:
    """One request a second, the one in the middle failed."""
    records = [record(i, float(i)) for i in range(count)]
    records[count // 2] = replace(
        records[count // 2], error="timeout", first_s=None, last_s=None, gaps_s=[], output_tokens=0
    )
    clauses = (Clause("ttft_s", 99, 0.6), Clause("itl_s", 50, 0.2))
    return Run("measured", records, 2.0, float(count) - 2, clauses, Availability(99.0, 3600.0))


def test_only_the_measured_span_counts() -> None:
    summary = summarise(run())
    assert summary.requests == 16
    assert summary.answered == 15
    assert summary.errors == {"timeout": 1}
    assert summary.offered_per_s == 1.0
    assert summary.requests_per_s == pytest.approx(15 / 16)
    assert summary.output_tokens_per_s == pytest.approx(4 * 15 / 16)
    assert summary.hit_rate == pytest.approx(0.2)
    assert summary.metrics["ttft_s"].at["p50"].value == pytest.approx(0.5)
    assert summary.metrics["itl_s"].count == 45
    assert summary.verdict is not None
    assert [r.passed for r in summary.verdict.clauses] == [True, False]
    assert summary.verdict.goodput == 0.0
    assert not summary.verdict.passed


def test_stalls_of_independent_gaps_are_as_expected() -> None:
    """Of answers with n gaps of which a share p is long, 1 - (1 - p)^n have one: within 5%."""
    rng = random.Random(0)
    records = []
    for number in range(2000):
        gaps = [0.4 if rng.random() < 0.01 else 0.02 for _ in range(200)]
        records.append(replace(record(number, float(number)), gaps_s=gaps))
    (stall,) = [s for s in summarise(Run("measured", records, 0, 2000)).stalls if s.limit_s == 0.25]
    assert stall.answer_share == pytest.approx(1 - 0.99**200, rel=0.05)
    assert stall.expected_share == pytest.approx(stall.answer_share, rel=0.05)


def test_a_run_survives_its_file() -> None:
    one = run()
    again = from_json(to_json(one, summarise(one)), "run.json")
    assert again == one
    assert summary_dict(summarise(one))["calibration"] is None
    assert math.isnan(summarise(one).calibration)


def test_predictions_are_compared() -> None:
    one = run()
    for each in one.records:
        each.predicted_ttft_s = 0.6
    assert summarise(one).calibration == pytest.approx(1.2)


@pytest.mark.parametrize("text", ["", "{}", '{"format": "penstock-run", "schema": 99}'])
def test_other_files_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"x\.json"):
        from_json(text, "x.json")


def test_an_empty_span_is_refused() -> None:
    with pytest.raises(ConfigError, match="measured span"):
        summarise(replace(run(), begin_s=100.0, end_s=200.0))
