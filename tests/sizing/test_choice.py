"""The pass mark decides the model, and with it the regime."""

from __future__ import annotations

import pytest

from penstock.errors import ConfigError
from penstock.sizing.choice import Candidate, Score, Scored, read_scored, smallest_passing
from penstock.workload.definition import QualityGate
from tests.sizing.models import LLAMA_8B, LLAMA_70B, shape

TEXT = """
[[model]]
config = "8b"
scores = [{ eval = "mmlu", score = 0.66 }, { eval = "own", score = 0.8 }]

[[model]]
config = "70b"
scores = [{ eval = "mmlu", score = 0.80 }]
"""
SMALL, LARGE = (
    Candidate(shape(config), scored)
    for config, scored in zip((LLAMA_8B, LLAMA_70B), read_scored(TEXT, "models.toml"), strict=True)
)


def test_the_file_is_read() -> None:
    assert LARGE.scored == Scored("70b", (Score("mmlu", 0.8),))
    with pytest.raises(ConfigError, match=r"m:4: model\[0\]\.scores\[0\]\.score: is 66"):
        read_scored(TEXT.replace("0.66", "66"), "m")


def test_the_choice_changes_when_the_pass_mark_moves() -> None:
    """REQUIREMENTS B3."""
    assert smallest_passing([LARGE, SMALL], [QualityGate("mmlu", 0.6, 1.0)]) == (SMALL, [])
    chosen, reasons = smallest_passing([SMALL, LARGE], [QualityGate("mmlu", 0.7, 1.0)])
    assert chosen is LARGE
    assert reasons == ["8b: mmlu 0.66 < 0.7"]


def test_a_missing_score_fails_and_nobody_passing_is_told() -> None:
    with pytest.raises(ConfigError, match=r"70b: code 0 < 0\.5"):
        smallest_passing([SMALL, LARGE], [QualityGate("code", 0.5, 1.0)])
