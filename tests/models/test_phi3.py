"""Phi-3 and Phi-4 against transformers, and what their config.json may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.errors import CheckpointError, UnsupportedError
from penstock.models.config_json import ConfigJson
from penstock.models.phi3 import read
from tests import dense, oracle

SHAPES = oracle.FAMILIES["phi3"]


@pytest.mark.parametrize("shape", SHAPES[:1], ids=lambda shape: shape.name)
def test_answers_like_transformers(shape: oracle.Shape, folder: Path) -> None:
    dense.check_against_oracle("phi3", shape, folder, 20, 8, "torch")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "torch-reference"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_answers_like_transformers_for_long(
    shape: oracle.Shape, backend: str, folder: Path
) -> None:
    dense.check_against_oracle("phi3", shape, folder, 32, 32, backend)


@pytest.mark.slow
def test_half_precision_is_as_close_as_transformers(folder: Path) -> None:
    dense.check_half_precision("phi3", SHAPES[0], folder)


def test_reads_the_file_as_published() -> None:
    """Phi-4-mini: a window as wide as twice the context is none."""
    plan = read(ConfigJson(PHI_4_MINI))
    assert (plan.head_dim, plan.num_kv_heads, plan.joined, plan.tied) == (128, 8, True, True)
    assert plan.windows == (0,) * 32
    assert (plan.rope.kind, plan.rope.partial, plan.rope.size(128)) == ("longrope", 0.75, 96)
    assert plan.rope.attention_factor == pytest.approx(1.1902380714238083)
    assert (plan.rope.original_max, plan.max_positions) == (4096, 131072)


def test_the_longest_request_chooses_the_frequencies() -> None:
    """So that no answer depends on whether it is long itself: a key would otherwise turn with one
    set and be read with the other."""
    assert read(ConfigJson(PHI_4_MINI)).rope.factors == (4.0,) * 48
    assert read(ConfigJson(PHI_4_MINI, longest=4097)).rope.factors == (4.0,) * 48
    assert read(ConfigJson(PHI_4_MINI, longest=4096)).rope.factors == (1.0,) * 48


def test_the_older_name_of_longrope() -> None:
    rope = {"type": "su", "short_factor": [1.0] * 48, "long_factor": [2.0] * 48}
    plan = read(ConfigJson(PHI_4_MINI | {"rope_scaling": rope}))
    assert (plan.rope.kind, plan.rope.factors) == ("longrope", (2.0,) * 48)


def test_factors_must_fit_the_rotated_part() -> None:
    with pytest.raises(CheckpointError, match="does not fit heads"):
        read(ConfigJson(PHI_4_MINI | {"partial_rotary_factor": 1.0}))


def test_refuses_block_sparse_attention() -> None:
    with pytest.raises(UnsupportedError, match="full_attn_mod"):
        read(ConfigJson(PHI_4_MINI | {"full_attn_mod": 2}))


PHI_4_MINI = {
    "architectures": ["Phi3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"},
    "bos_token_id": 199999,
    "embd_pdrop": 0.0,
    "eos_token_id": 199999,
    "full_attn_mod": 1,
    "hidden_act": "silu",
    "hidden_size": 3072,
    "initializer_range": 0.02,
    "intermediate_size": 8192,
    "interpolate_factor": 1,
    "lm_head_bias": False,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "phi3",
    "num_attention_heads": 24,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "original_max_position_embeddings": 4096,
    "pad_token_id": 199999,
    "partial_rotary_factor": 0.75,
    "resid_pdrop": 0.0,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "long_factor": [4.0] * 48,
        "short_factor": [1.0] * 48,
        "type": "longrope",
    },
    "rope_theta": 10000.0,
    "sliding_window": 262144,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.45.0",
    "use_cache": True,
    "vocab_size": 200064,
}
"""with factors that are easier to tell apart"""
