"""Gemma 2 against transformers, and what its config.json may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.layers.rotary import Rope
from penstock.models.config_json import ConfigJson
from penstock.models.gemma2 import read
from tests import dense, oracle

SHAPES = oracle.FAMILIES["gemma2"]


@pytest.mark.parametrize("shape", SHAPES[:1], ids=lambda shape: shape.name)
def test_answers_like_transformers(shape: oracle.Shape, folder: Path) -> None:
    dense.check_against_oracle("gemma2", shape, folder, 20, 8, "torch")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "torch-reference"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_answers_like_transformers_for_long(
    shape: oracle.Shape, backend: str, folder: Path
) -> None:
    dense.check_against_oracle("gemma2", shape, folder, 32, 32, backend)


@pytest.mark.slow
def test_half_precision_is_as_close_as_transformers(folder: Path) -> None:
    dense.check_half_precision("gemma2", SHAPES[0], folder)


def test_reads_the_file_as_published() -> None:
    """Gemma-2-2B."""
    plan = read(ConfigJson(GEMMA_2_2B))
    assert (plan.head_dim, plan.num_heads, plan.num_kv_heads, plan.mlp_size) == (256, 8, 4, 9216)
    assert (plan.norms, plan.norm_offset, plan.tied, plan.act) == (
        "both", 1.0, True, "gelu_pytorch_tanh",
    )  # fmt: skip
    assert (plan.attention_softcap, plan.logit_softcap, plan.attention_scale) == (
        50.0,
        30.0,
        1 / 16,
    )
    assert plan.windows == (4096, 0) * 13
    assert (plan.embed_scale, plan.rope, plan.max_positions) == (48.0, Rope(10000.0), 8192)


def test_a_cap_that_is_null_is_none() -> None:
    raw = GEMMA_2_2B | {"attn_logit_softcapping": None, "final_logit_softcapping": None}
    plan = read(ConfigJson(raw))
    assert (plan.attention_softcap, plan.logit_softcap) == (0.0, 0.0)


GEMMA_2_2B = {
    "architectures": ["Gemma2ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": 50.0,
    "bos_token_id": 2,
    "cache_implementation": "hybrid",
    "eos_token_id": 1,
    "final_logit_softcapping": 30.0,
    "head_dim": 256,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 2304,
    "initializer_range": 0.02,
    "intermediate_size": 9216,
    "max_position_embeddings": 8192,
    "model_type": "gemma2",
    "num_attention_heads": 8,
    "num_hidden_layers": 26,
    "num_key_value_heads": 4,
    "pad_token_id": 0,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "torch_dtype": "float32",
    "transformers_version": "4.42.4",
    "use_cache": True,
    "vocab_size": 256000,
}
