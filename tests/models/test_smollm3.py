"""SmolLM3 against transformers, and what its config.json may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.errors import CheckpointError
from penstock.layers.rotary import Rope
from penstock.models.config_json import ConfigJson
from penstock.models.smollm3 import read
from tests import dense, oracle

SHAPES = oracle.FAMILIES["smollm3"]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_answers_like_transformers(shape: oracle.Shape, folder: Path) -> None:
    dense.check_against_oracle("smollm3", shape, folder, 20, 8, "torch")


def test_half_precision_is_as_close_as_transformers(folder: Path) -> None:
    dense.check_half_precision("smollm3", SHAPES[0], folder)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "torch-reference"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_answers_like_transformers_for_long(
    shape: oracle.Shape, backend: str, folder: Path
) -> None:
    dense.check_against_oracle("smollm3", shape, folder, 32, 32, backend)


def test_reads_the_file_as_published() -> None:
    plan = read(ConfigJson(SMOLLM3))
    assert plan.rotary == (True, True, True, False) * 9
    assert plan.windows == (0,) * 36
    assert (plan.rope, plan.tied) == (Rope(5e6), True)


def test_too_few_entries_are_refused() -> None:
    with pytest.raises(CheckpointError, match="no_rope_layers has 2 entries for 36 layers"):
        read(ConfigJson(SMOLLM3 | {"no_rope_layers": [1, 0]}))


SMOLLM3 = {
    "architectures": ["SmolLM3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": None,
    "eos_token_id": 128012,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 11008,
    "layer_types": ["full_attention"] * 36,
    "max_position_embeddings": 65536,
    "max_window_layers": 28,
    "mlp_bias": False,
    "model_type": "smollm3",
    "no_rope_layer_interval": 4,
    "no_rope_layers": [1, 1, 1, 0] * 9,
    "num_attention_heads": 16,
    "num_hidden_layers": 36,
    "num_key_value_heads": 4,
    "pad_token_id": 128004,
    "pretraining_tp": 2,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 5000000.0,
    "sliding_window": None,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.54.0.dev0",
    "use_cache": False,
    "use_sliding_window": False,
    "vocab_size": 128256,
}
