"""The pass mark decides the model, and with it the regime."""

from __future__ import annotations

import pytest

from penstock.errors import ConfigError
from penstock.sizing.choice import Candidate, smallest_passing
from penstock.workload.definition import QualityGate
from tests.sizing.models import LLAMA_8B, LLAMA_70B, shape

SMALL = Candidate(shape(LLAMA_8B), {"mmlu": 0.66, "own": 0.8})
LARGE = Candidate(shape(LLAMA_70B), {"mmlu": 0.80, "own": 0.9})


def test_the_choice_changes_when_the_pass_mark_moves() -> None:
    """REQUIREMENTS B3."""
    assert smallest_passing([LARGE, SMALL], [QualityGate("mmlu", 0.6, 1.0)]) == (SMALL, [])
    chosen, reasons = smallest_passing([SMALL, LARGE], [QualityGate("mmlu", 0.7, 1.0)])
    assert chosen is LARGE
    assert "mmlu 0.66 < 0.7" in reasons[0]


def test_a_missing_score_fails_and_nobody_passing_is_told() -> None:
    with pytest.raises(ConfigError, match=r"code 0 < 0\.5"):
        smallest_passing([SMALL, LARGE], [QualityGate("code", 0.5, 1.0)])
