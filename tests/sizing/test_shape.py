"""Sizes are those that the engine's own readers find, and of the models' own counts."""

from __future__ import annotations

import json

import pytest

from penstock.engine.weights import read_plan
from penstock.errors import CheckpointError
from penstock.layers.decoder import DecoderPlan
from penstock.sizing.shape import read_shape
from tests import oracle
from tests.sizing.models import LLAMA_8B, LLAMA_70B, MIXTRAL, shape


@pytest.mark.parametrize(
    ("config", "total", "active"),
    [(LLAMA_8B, 8.03e9, 7.5e9), (LLAMA_70B, 70.55e9, 69.5e9), (MIXTRAL, 46.7e9, 12.7e9)],
    ids=["8B", "70B", "8x7B"],
)
def test_known_models_have_their_known_sizes(
    config: dict[str, object], total: float, active: float
) -> None:
    found = shape(config)
    assert found.num_params == pytest.approx(total, rel=0.003)
    assert found.active_params == pytest.approx(active, rel=0.01)


@pytest.mark.parametrize("family", oracle.FAMILIES)
def test_the_engine_reads_the_same(family: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    for case in oracle.FAMILIES[family]:
        folder = oracle.make_checkpoint(
            family, case, case.seed, tmp_path_factory.mktemp("checkpoint")
        )
        text = (folder / "config.json").read_text()
        plan = read_plan(json.loads(text), folder / "config.json")
        assert isinstance(plan, DecoderPlan)
        found = read_shape(text)
        names = ("vocab_size", "hidden_size", "mlp_size", "num_heads", "num_kv_heads", "head_dim",
                 "windows", "max_positions", "tied", "qkv_bias", "mlp_bias", "qk_norm")  # fmt: skip
        expected = {n: getattr(plan, n) for n in names}
        if plan.experts is not None:
            expected["mlp_size"] = plan.experts.size
        assert {n: getattr(found, n) for n in names} == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{oops", r"c\.json:1: not JSON"),
        ("[]", "no object"),
        ('{"hidden_size": 5}', "num_attention_heads is missing"),
        ('{"hidden_size": "big", "num_attention_heads": 4}', "hidden_size is 'big'"),
    ],
)
def test_other_files_are_refused(text: str, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        read_shape(text, "c.json")
