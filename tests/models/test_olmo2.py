"""OLMo 2 against transformers, and what its config.json may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.layers.rotary import Rope
from penstock.models.config_json import ConfigJson
from penstock.models.olmo2 import read
from tests import dense, oracle

SHAPES = oracle.FAMILIES["olmo2"]


@pytest.mark.parametrize("shape", SHAPES[:1], ids=lambda shape: shape.name)
def test_answers_like_transformers(shape: oracle.Shape, folder: Path) -> None:
    dense.check_against_oracle("olmo2", shape, folder, 20, 8, "torch")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "torch-reference"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_answers_like_transformers_for_long(
    shape: oracle.Shape, backend: str, folder: Path
) -> None:
    dense.check_against_oracle("olmo2", shape, folder, 32, 32, backend)


@pytest.mark.slow
def test_half_precision_is_as_close_as_transformers(folder: Path) -> None:
    dense.check_half_precision("olmo2", SHAPES[0], folder)


def test_reads_the_file_as_published() -> None:
    """OLMo-2-1124-7B."""
    plan = read(ConfigJson(OLMO_2_7B))
    assert (plan.norms, plan.qk_norm, plan.whole_qk_norm) == ("post", True, True)
    assert (plan.num_heads, plan.num_kv_heads, plan.tied) == (32, 32, False)
    assert (plan.rope, plan.max_positions, plan.norm_eps) == (Rope(500000.0), 4096, 1e-6)


OLMO_2_7B = {
    "architectures": ["Olmo2ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "eos_token_id": 100257,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 11008,
    "max_position_embeddings": 4096,
    "model_type": "olmo2",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "pad_token_id": 100277,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 500000,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "transformers_version": "4.47.0.dev0",
    "use_cache": True,
    "vocab_size": 100352,
}
