"""Llama against transformers, and what its config.json may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.layers.rotary import Rope
from penstock.models.config_json import ConfigJson
from penstock.models.llama import read
from tests import dense, oracle

SHAPES = oracle.FAMILIES["llama"]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_answers_like_transformers(shape: oracle.Shape, folder: Path) -> None:
    dense.check_against_oracle("llama", shape, folder, 20, 8, "torch")


def test_half_precision_is_as_close_as_transformers(folder: Path) -> None:
    dense.check_half_precision("llama", SHAPES[0], folder)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "torch-reference"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_answers_like_transformers_for_long(
    shape: oracle.Shape, backend: str, folder: Path
) -> None:
    dense.check_against_oracle("llama", shape, folder, 32, 32, backend)


def test_reads_the_files_as_published() -> None:
    """Llama-3.2-1B-Instruct and SmolLM2-135M, as on the hub."""
    llama = read(ConfigJson(LLAMA_32_1B))
    assert (llama.head_dim, llama.num_kv_heads, llama.norm_eps) == (64, 8, 1e-5)
    assert llama.rope == Rope(500000.0, "llama3", 32.0, 8192, 1.0, 4.0)
    assert (llama.max_positions, llama.tied, llama.qkv_bias) == (131072, True, False)
    smol = read(ConfigJson(SMOLLM2_135M))
    assert (smol.num_heads, smol.num_kv_heads, smol.head_dim) == (9, 3, 64)
    assert (smol.rope, smol.max_positions, len(smol.windows)) == (Rope(100000.0), 8192, 30)


LLAMA_32_1B = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.45.0.dev0",
    "use_cache": True,
    "vocab_size": 128256,
}
SMOLLM2_135M = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "hidden_act": "silu",
    "hidden_size": 576,
    "initializer_range": 0.041666666666666664,
    "intermediate_size": 1536,
    "is_llama_config": True,
    "max_position_embeddings": 8192,
    "model_type": "llama",
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_interleaved": False,
    "rope_scaling": None,
    "rope_theta": 100000,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.40.1",
    "use_cache": True,
    "vocab_size": 49152,
}
