"""Qwen3 with experts against transformers, and what its config.json may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.layers.moe import Experts
from penstock.layers.rotary import Rope
from penstock.models.config_json import ConfigJson
from penstock.models.qwen3_moe import read
from tests import dense, oracle

SHAPES = oracle.FAMILIES["qwen3_moe"]


@pytest.mark.parametrize("shape", SHAPES[:1], ids=lambda shape: shape.name)
def test_answers_like_transformers(shape: oracle.Shape, folder: Path) -> None:
    dense.check_against_oracle("qwen3_moe", shape, folder, 20, 8, "torch")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "torch-reference"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_answers_like_transformers_for_long(
    shape: oracle.Shape, backend: str, folder: Path
) -> None:
    dense.check_against_oracle("qwen3_moe", shape, folder, 32, 32, backend)


@pytest.mark.slow
def test_half_precision_is_as_close_as_transformers(folder: Path) -> None:
    dense.check_half_precision("qwen3_moe", SHAPES[0], folder)


def test_reads_the_file_as_published() -> None:
    """Qwen3-30B-A3B."""
    plan = read(ConfigJson(QWEN3_30B))
    assert plan.experts == Experts(128, 768, 8)
    assert (plan.head_dim, plan.num_kv_heads, plan.qk_norm) == (128, 4, True)
    assert (plan.windows, plan.rope) == ((0,) * 48, Rope(1e6))
    costs, _ = plan.costs
    assert costs == [2048 * (2 * 36 * 128 + 3 * 8 * 768)] * 48


def test_which_layers_have_experts() -> None:
    fields = {"num_hidden_layers": 5, "decoder_sparse_step": 2, "mlp_only_layers": [3]}
    assert read(ConfigJson(QWEN3_30B | fields)).sparse == (False, True, False, False, False)


QWEN3_30B = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "decoder_sparse_step": 1,
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 6144,
    "max_position_embeddings": 40960,
    "max_window_layers": 48,
    "mlp_only_layers": [],
    "model_type": "qwen3_moe",
    "moe_intermediate_size": 768,
    "norm_topk_prob": True,
    "num_attention_heads": 32,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 48,
    "num_key_value_heads": 4,
    "output_router_logits": False,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "router_aux_loss_coef": 0.001,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.51.0",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
