"""Qwen3 against transformers, and what its config.json may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.layers.rotary import Rope
from penstock.models.config_json import ConfigJson
from penstock.models.qwen3 import read
from tests import dense, oracle

SHAPES = oracle.FAMILIES["qwen3"]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_answers_like_transformers(shape: oracle.Shape, folder: Path) -> None:
    dense.check_against_oracle("qwen3", shape, folder, 20, 8, "torch")


def test_half_precision_is_as_close_as_transformers(folder: Path) -> None:
    dense.check_half_precision("qwen3", SHAPES[0], folder)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "torch-reference"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_answers_like_transformers_for_long(
    shape: oracle.Shape, backend: str, folder: Path
) -> None:
    dense.check_against_oracle("qwen3", shape, folder, 32, 32, backend)


def test_reads_the_file_as_published() -> None:
    """Qwen3-0.6B: the head dimension is not hidden_size / heads."""
    plan = read(ConfigJson(QWEN3))
    assert (plan.head_dim, plan.num_heads, plan.hidden_size) == (128, 16, 1024)
    assert (plan.qk_norm, plan.qkv_bias, plan.tied) == (True, False, True)
    assert (plan.rope, plan.max_positions) == (Rope(1e6), 40960)


QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "model_type": "qwen3",
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.51.0",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
