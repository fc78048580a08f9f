"""Granite 3 against transformers, and what its config.json may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.errors import CheckpointError
from penstock.layers.rotary import Rope
from penstock.models.config_json import ConfigJson
from penstock.models.granite import read
from tests import dense, oracle

SHAPES = oracle.FAMILIES["granite"]


@pytest.mark.parametrize("shape", SHAPES[:1], ids=lambda shape: shape.name)
def test_answers_like_transformers(shape: oracle.Shape, folder: Path) -> None:
    dense.check_against_oracle("granite", shape, folder, 20, 8, "torch")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "torch-reference"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_answers_like_transformers_for_long(
    shape: oracle.Shape, backend: str, folder: Path
) -> None:
    dense.check_against_oracle("granite", shape, folder, 32, 32, backend)


@pytest.mark.slow
def test_half_precision_is_as_close_as_transformers(folder: Path) -> None:
    dense.check_half_precision("granite", SHAPES[0], folder)


def test_reads_the_file_as_published() -> None:
    """Granite-3.1-2B-instruct."""
    plan = read(ConfigJson(GRANITE_31_2B))
    assert (plan.embed_scale, plan.residual_scale, plan.logit_scale) == (12.0, 0.22, 0.125)
    assert (plan.attention_scale, plan.head_dim, plan.tied) == (0.015625, 64, True)
    assert (plan.rope, plan.max_positions) == (Rope(5e6), 131072)


def test_refuses_to_divide_by_nothing() -> None:
    with pytest.raises(CheckpointError, match="logits_scaling"):
        read(ConfigJson(GRANITE_31_2B | {"logits_scaling": 0.0}))


GRANITE_31_2B = {
    "architectures": ["GraniteForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.1,
    "attention_multiplier": 0.015625,
    "bos_token_id": 0,
    "embedding_multiplier": 12.0,
    "eos_token_id": 0,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 8192,
    "logits_scaling": 8.0,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "granite",
    "num_attention_heads": 32,
    "num_hidden_layers": 40,
    "num_key_value_heads": 8,
    "pad_token_id": 0,
    "residual_multiplier": 0.22,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 5000000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.47.0",
    "use_cache": True,
    "vocab_size": 49155,
}
