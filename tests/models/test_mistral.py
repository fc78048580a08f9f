"""Mistral against transformers, and what its config.json may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.core.plan import KVGroup
from penstock.models.config_json import ConfigJson
from penstock.models.mistral import read
from tests import dense, oracle

SHAPES = oracle.FAMILIES["mistral"]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_answers_like_transformers(shape: oracle.Shape, folder: Path) -> None:
    dense.check_against_oracle("mistral", shape, folder, 20, 8, "torch")


def test_half_precision_is_as_close_as_transformers(folder: Path) -> None:
    dense.check_half_precision("mistral", SHAPES[0], folder)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "torch-reference"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_answers_like_transformers_for_long(
    shape: oracle.Shape, backend: str, folder: Path
) -> None:
    dense.check_against_oracle("mistral", shape, folder, 32, 32, backend)


@pytest.mark.parametrize(
    ("fields", "window"), [({}, 4096), ({"sliding_window": None}, 0), ({"sliding_window": 77}, 77)]
)
def test_one_window_for_all_layers(fields: dict[str, int | None], window: int) -> None:
    plan = read(ConfigJson(MISTRAL_7B | fields))
    assert plan.kv_groups == (KVGroup(tuple(range(32)), window),)
    assert (plan.tied, plan.qkv_bias, plan.qk_norm) == (False, False, False)


MISTRAL_7B = {
    "architectures": ["MistralForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "model_type": "mistral",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.34.0.dev0",
    "use_cache": True,
    "vocab_size": 32000,
}
