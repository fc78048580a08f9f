"""Qwen2 against transformers, and what its config.json may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.layers.rotary import Rope
from penstock.models.config_json import ConfigJson
from penstock.models.qwen2 import read
from tests import dense, oracle

SHAPES = oracle.FAMILIES["qwen2"]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_answers_like_transformers(shape: oracle.Shape, folder: Path) -> None:
    dense.check_against_oracle("qwen2", shape, folder, 20, 8, "torch")


def test_half_precision_is_as_close_as_transformers(folder: Path) -> None:
    dense.check_half_precision("qwen2", SHAPES[0], folder)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "torch-reference"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_answers_like_transformers_for_long(
    shape: oracle.Shape, backend: str, folder: Path
) -> None:
    dense.check_against_oracle("qwen2", shape, folder, 32, 32, backend)


def test_reads_the_file_as_published() -> None:
    """Qwen2.5-0.5B-Instruct, and with the yarn scaling that its page recommends."""
    plan = read(ConfigJson(QWEN25))
    assert (plan.windows, plan.qkv_bias, plan.out_bias, plan.tied) == ((0,) * 24, True, False, True)
    assert plan.max_positions == 32768
    yarn = {"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"}
    stretched = read(ConfigJson(QWEN25 | {"rope_scaling": yarn}))
    assert stretched.max_positions == 131072
    assert stretched.rope == Rope(
        1e6, "yarn", 4.0, 32768, attention_factor=stretched.rope.attention_factor
    )


QWEN25 = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "hidden_act": "silu",
    "hidden_size": 896,
    "initializer_range": 0.02,
    "intermediate_size": 4864,
    "max_position_embeddings": 32768,
    "max_window_layers": 21,
    "model_type": "qwen2",
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.43.1",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
