"""Gemma 3 (text) against transformers, and what its config.json may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.errors import UnsupportedError
from penstock.layers.rotary import Rope
from penstock.models.config_json import ConfigJson
from penstock.models.gemma3 import read
from tests import dense, oracle

SHAPES = oracle.FAMILIES["gemma3"]


@pytest.mark.parametrize("shape", SHAPES[:1], ids=lambda shape: shape.name)
def test_answers_like_transformers(shape: oracle.Shape, folder: Path) -> None:
    dense.check_against_oracle("gemma3", shape, folder, 20, 8, "torch")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "torch-reference"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_answers_like_transformers_for_long(
    shape: oracle.Shape, backend: str, folder: Path
) -> None:
    dense.check_against_oracle("gemma3", shape, folder, 32, 32, backend)


@pytest.mark.slow
def test_half_precision_is_as_close_as_transformers(folder: Path) -> None:
    dense.check_half_precision("gemma3", SHAPES[0], folder)


def test_reads_the_file_as_published() -> None:
    """Gemma-3-1B."""
    plan = read(ConfigJson(GEMMA_3_1B))
    assert plan.windows == (512, 512, 512, 512, 512, 0) * 4 + (512, 512)
    assert (plan.rope, plan.local_rope) == (Rope(1e6), Rope(1e4))
    assert (plan.qk_norm, plan.norms, plan.norm_offset) == (True, "both", 1.0)
    assert (plan.attention_softcap, plan.logit_softcap, plan.max_positions) == (0.0, 0.0, 32768)


def test_the_stretching_is_of_full_layers_alone() -> None:
    scaling = {"factor": 8.0, "rope_type": "linear"}
    plan = read(ConfigJson(GEMMA_3_1B | {"rope_scaling": scaling}))
    assert (plan.rope, plan.local_rope) == (Rope(1e6, "linear", 8.0), Rope(1e4))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ({"rope_parameters": {"rope_theta": 1e6}}, "rope_parameters"),
    ],
)
def test_refusals(fields: dict[str, object], named: str) -> None:
    with pytest.raises(UnsupportedError, match=named):
        read(ConfigJson(GEMMA_3_1B | fields))


GEMMA_3_1B = {
    "architectures": ["Gemma3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": None,
    "bos_token_id": 2,
    "cache_implementation": "hybrid",
    "eos_token_id": [1, 106],
    "final_logit_softcapping": None,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 1152,
    "initializer_range": 0.02,
    "intermediate_size": 6912,
    "max_position_embeddings": 32768,
    "model_type": "gemma3_text",
    "num_attention_heads": 4,
    "num_hidden_layers": 26,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.50.0.dev0",
    "use_cache": True,
    "vocab_size": 262144,
}
