"""Mixtral against transformers, and what its config.json may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.errors import CheckpointError
from penstock.layers.moe import Experts
from penstock.layers.rotary import Rope
from penstock.models.config_json import ConfigJson
from penstock.models.mixtral import read
from tests import dense, oracle

SHAPES = oracle.FAMILIES["mixtral"]


@pytest.mark.parametrize("shape", SHAPES[:1], ids=lambda shape: shape.name)
def test_answers_like_transformers(shape: oracle.Shape, folder: Path) -> None:
    dense.check_against_oracle("mixtral", shape, folder, 20, 8, "torch")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "torch-reference"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_answers_like_transformers_for_long(
    shape: oracle.Shape, backend: str, folder: Path
) -> None:
    dense.check_against_oracle("mixtral", shape, folder, 32, 32, backend)


@pytest.mark.slow
def test_half_precision_is_as_close_as_transformers(folder: Path) -> None:
    dense.check_half_precision("mixtral", SHAPES[0], folder)


def test_reads_the_file_as_published() -> None:
    """Mixtral-8x7B."""
    plan = read(ConfigJson(MIXTRAL))
    names = ("w1", "w3", "w2")
    assert plan.experts == Experts(8, 14336, 2, True, "block_sparse_moe", names)
    assert plan.sparse == (True,) * 32
    assert (plan.windows, plan.rope, plan.norm_eps) == ((0,) * 32, Rope(1e6), 1e-5)


def test_a_token_cannot_have_more_experts_than_there_are() -> None:
    with pytest.raises(CheckpointError, match="9 of 8"):
        read(ConfigJson(MIXTRAL | {"num_experts_per_tok": 9}))


MIXTRAL = {
    "architectures": ["MixtralForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "model_type": "mixtral",
    "num_attention_heads": 32,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "output_router_logits": False,
    "rms_norm_eps": 1e-05,
    "rope_theta": 1000000.0,
    "router_aux_loss_coef": 0.02,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.36.0.dev0",
    "use_cache": True,
    "vocab_size": 32000,
}
