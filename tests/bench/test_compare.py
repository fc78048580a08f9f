from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from scipy import stats

from penstock.bench.compare import compare, mann_whitney, proportions, welch
from penstock.report.run import Run
from penstock.workload.definition import Clause
from tests.report.test_records import record


def run(seed: int, slower: float = 1.0, failing: float = 0.0) -> Run:
    rng = random.Random(seed)
    records = []
    for number in range(400):
        one = record(number, 0.25 * number)
        first = one.due_s + slower * rng.lognormvariate(-2, 0.5)
        error = "timeout" if rng.random() < failing else ""
        records.append(replace(one, first_s=first, end_s=first + 0.8, error=error))
    return Run("measured", records, 0.0, 100.0, (Clause("ttft_s", 90, 0.5),))


def test_noise_is_not_a_change() -> None:
    words = [change.word for seed in range(5) for change in compare(run(seed), run(seed + 50))]
    assert words.count("same") >= len(words) - 1


def test_a_real_change_is_found_and_named() -> None:
    changes = {change.name: change for change in compare(run(1), run(2, 1.3, 0.1))}
    assert changes["TTFT p50, s"].word == "worse"
    assert changes["answered share"].word == "worse"
    assert changes["TPOT p50, s"].word == "same"
    back = {change.name: change for change in compare(run(2, 1.3), run(1))}
    assert back["TTFT p50, s"].word == "better"


@pytest.mark.parametrize("ties", [False, True])
def test_the_tests_agree_with_scipy(ties: bool) -> None:
    rng = random.Random(4)
    one = [rng.gauss(0, 1) for _ in range(60)]
    two = [rng.gauss(0.4, 1) for _ in range(80)]
    if ties:
        one, two = [[round(value) for value in many] for many in (one, two)]
    wanted = stats.mannwhitneyu(one, two, method="asymptotic", use_continuity=False).pvalue
    assert mann_whitney(one, two) == pytest.approx(wanted, rel=1e-6)
    assert welch(one, two) == pytest.approx(
        stats.ttest_ind(one, two, equal_var=False).pvalue, abs=0.01
    )
    table = [[30, 70], [50, 50]]
    wanted = stats.chi2_contingency(table, correction=False).pvalue
    assert proportions(30, 100, 50, 100) == pytest.approx(wanted)


def test_nothing_to_compare() -> None:
    assert math.isnan(mann_whitney([], [1.0]))
    assert mann_whitney([1.0, 1.0], [1.0]) == 1.0
    assert proportions(0, 5, 0, 5) == 1.0
    assert welch([1.0, 1.0], [1.0, 1.0]) == 1.0
    assert welch([1.0, 1.0], [2.0, 2.0]) == 0.0
