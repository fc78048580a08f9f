"""transformers as the oracle: random-weight checkpoints at fixed seeds, and its greedy answers.

`FAMILIES` lists the shapes. Weights are drawn so that logits spread over several units: the
smallest gap between the best and the second logit over `prompts` is at least GAP (asserted where
answers are asked for), while float32 programs agree within 1e-4, so that ids must be equal.
"""

from __future__ import annotations

import random
import warnings
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch

GAP = 1e-3
"""least distance of the two best logits at any position that an answer was taken from"""
TOLERANCE = 1e-4
"""most distance of two float32 programs' logits"""


@dataclass(frozen=True)
class Shape:
    """One checkpoint: a config class of transformers, what differs from SMALL, and a seed."""

    name: str
    config: str
    seed: int = 0
    fields: dict[str, Any] = field(default_factory=dict, hash=False)


SMALL = {
    "vocab_size": 320,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 0,
}

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 32,
}

LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "attention_factor": 1.2,
    "short_factor": [1.0, 1.1, 1.3, 1.5, 2.0, 2.5],
    "long_factor": [1.0, 1.5, 2.0, 3.0, 4.0, 8.0],
}
GEMMA = {"head_dim": 16, "query_pre_attn_scalar": 16, "tie_word_embeddings": True}
GRANITE = {
    "embedding_multiplier": 6.0,
    "residual_multiplier": 0.22,
    "attention_multiplier": 0.25,
    "logits_scaling": 0.5,
}
QWEN3_MOE = {
    "head_dim": 16,
    "num_experts": 6,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 40,
    "norm_topk_prob": True,
}


def _shape(name: str, config: str, seed: int = 0, **fields: Any) -> Shape:
    return Shape(name, config, seed, fields)


FAMILIES: dict[str, tuple[Shape, ...]] = {
    "llama": (
        _shape("gqa", "LlamaConfig"),
        _shape("tied", "LlamaConfig", tie_word_embeddings=True, num_key_value_heads=1),
        _shape("biases", "LlamaConfig", 4, attention_bias=True, mlp_bias=True, head_dim=16),
        _shape("llama3", "LlamaConfig", rope_parameters=LLAMA3, num_key_value_heads=4),
        _shape(
            "linear",
            "LlamaConfig",
            2,
            rope_parameters={"rope_type": "linear", "factor": 3.0, "rope_theta": 500.0},
        ),
        _shape(
            "dynamic",
            "LlamaConfig",
            rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0},
        ),
    ),
    "mistral": (
        _shape("window", "MistralConfig", 2, sliding_window=8),
        _shape("wide-window", "MistralConfig", sliding_window=33, num_key_value_heads=4),
        _shape("no-window", "MistralConfig", sliding_window=None, head_dim=24),
    ),
    "qwen2": (
        _shape("untied", "Qwen2Config", 6, num_key_value_heads=1),
        _shape("tied", "Qwen2Config", tie_word_embeddings=True),
        _shape(
            "windows",
            "Qwen2Config",
            num_hidden_layers=3,
            use_sliding_window=True,
            sliding_window=9,
            max_window_layers=1,
        ),
        _shape("yarn", "Qwen2Config", 1, rope_parameters=YARN),
    ),
    "qwen3": (
        _shape("head-dim", "Qwen3Config", 3, head_dim=32),
        _shape("tied", "Qwen3Config", head_dim=16, tie_word_embeddings=True, attention_bias=True),
        _shape(
            "yarn-mscale",
            "Qwen3Config",
            1,
            head_dim=16,
            num_key_value_heads=4,
            rope_parameters=YARN | {"mscale": 1.2, "mscale_all_dim": 0.7, "truncate": False},
        ),
        _shape(
            "windows",
            "Qwen3Config",
            head_dim=12,
            num_hidden_layers=4,
            layer_types=["sliding_attention", "full_attention"] * 2,
            use_sliding_window=True,
            sliding_window=7,
        ),
    ),
    "smollm3": (
        _shape("nope", "SmolLM3Config", num_hidden_layers=4, tie_word_embeddings=True),
        _shape("untied", "SmolLM3Config", no_rope_layer_interval=2, attention_bias=True),
        _shape(
            "windows",
            "SmolLM3Config",
            num_hidden_layers=3,
            no_rope_layers=[1, 0, 1],
            use_sliding_window=True,
            sliding_window=10,
            mlp_bias=True,
        ),
    ),
    "gemma2": (
        _shape("caps", "Gemma2Config", sliding_window=8, **GEMMA),
        _shape(
            "no-caps",
            "Gemma2Config",
            sliding_window=33,
            attn_logit_softcapping=None,
            final_logit_softcapping=None,
            **GEMMA | {"head_dim": 32, "num_key_value_heads": 1},
        ),
        _shape(
            "biases",
            "Gemma2Config",
            sliding_window=5,
            attention_bias=True,
            num_hidden_layers=3,
            attn_logit_softcapping=5.0,
            **GEMMA | {"query_pre_attn_scalar": 24, "tie_word_embeddings": False},
        ),
    ),
    "gemma3": (
        _shape("windows", "Gemma3TextConfig", sliding_window=8, **GEMMA),
        _shape(
            "every-third",
            "Gemma3TextConfig",
            sliding_window=20,
            sliding_window_pattern=3,
            num_hidden_layers=4,
            final_logit_softcapping=20.0,
            **GEMMA | {"query_pre_attn_scalar": 40},
        ),
        _shape(
            "stretched",
            "Gemma3TextConfig",
            sliding_window=12,
            layer_types=["full_attention", "sliding_attention"],
            rope_parameters={
                "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e4},
                "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
            },
            **GEMMA | {"num_key_value_heads": 1},
        ),
    ),
    "phi3": (
        _shape("short", "Phi3Config", original_max_position_embeddings=512),
        _shape(
            "window",
            "Phi3Config",
            1,
            sliding_window=16,
            num_key_value_heads=4,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 1e4,
                "partial_rotary_factor": 0.5,
            },
            head_dim=16,
        ),
        _shape(
            "longrope",
            "Phi3Config",
            tie_word_embeddings=True,
            hidden_size=64,
            original_max_position_embeddings=1,
            rope_parameters=LONGROPE
            | {"original_max_position_embeddings": 1, "partial_rotary_factor": 0.75},
        ),
        _shape(
            "longrope-short",
            "Phi3Config",
            1,
            hidden_size=64,
            original_max_position_embeddings=512,
            rope_parameters=LONGROPE
            | {"original_max_position_embeddings": 512, "partial_rotary_factor": 0.75},
        ),
    ),
    "olmo2": (
        _shape("gqa", "Olmo2Config"),
        _shape("mha", "Olmo2Config", num_key_value_heads=4, tie_word_embeddings=True),
        _shape("biases", "Olmo2Config", 1, attention_bias=True, head_dim=16, num_hidden_layers=3),
    ),
    "granite": (
        _shape("multipliers", "GraniteConfig", **GRANITE),
        _shape("tied", "GraniteConfig", tie_word_embeddings=True, **GRANITE),
        _shape(
            "biases",
            "GraniteConfig",
            1,
            attention_bias=True,
            mlp_bias=True,
            head_dim=16,
            num_key_value_heads=1,
            **GRANITE | {"residual_multiplier": 0.7},
        ),
    ),
    "mixtral": (
        _shape("two-of-four", "MixtralConfig", num_local_experts=4),
        _shape(
            "window",
            "MixtralConfig",
            sliding_window=9,
            num_experts_per_tok=3,
            num_local_experts=5,
            head_dim=16,
        ),
        _shape("one", "MixtralConfig", num_experts_per_tok=1, tie_word_embeddings=True),
    ),
    "qwen3_moe": (
        _shape("all-sparse", "Qwen3MoeConfig", 1, **QWEN3_MOE),
        _shape(
            "mixed",
            "Qwen3MoeConfig",
            num_hidden_layers=3,
            mlp_only_layers=[1],
            **QWEN3_MOE | {"norm_topk_prob": False, "num_experts_per_tok": 2},
        ),
        _shape(
            "steps",
            "Qwen3MoeConfig",
            num_hidden_layers=4,
            decoder_sparse_step=2,
            attention_bias=True,
            tie_word_embeddings=True,
            **QWEN3_MOE | {"head_dim": 32},
        ),
    ),
}


def shapes() -> list[tuple[str, Shape]]:
    """(family, shape) of all families."""
    return [(family, shape) for family, found in FAMILIES.items() for shape in found]


def make_checkpoint(family: str, shape: Shape, seed: int, directory: Path) -> Path:
    """Save a random-weight float32 checkpoint with safetensors under directory; its folder.

    Matrices are N(0, 1 / sqrt(inputs)), the head N(0, 4 / sqrt(inputs)), norms near 1.
    """
    transformers = _transformers()
    path = directory / f"{family}-{shape.name}-{seed}"
    config = getattr(transformers, shape.config)(**(SMALL | shape.fields))
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    one = 0.0 if shape.config.startswith("Gemma") else 1.0  # whose norms multiply by 1 + weight
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.dim() == 1:
                weight.copy_(noise * 0.1 + (one if "norm" in name else 0.0))
            else:
                gain = 4.0 if name in ("lm_head.weight", "model.embed_tokens.weight") else 1.0
                weight.copy_(noise * gain * weight.shape[-1] ** -0.5)
    model.save_pretrained(path)
    return path


def prompts(seed: int, n: int, vocab_size: int) -> list[list[int]]:
    """n prompts of 1 to 90 random ids (0 and 1, the special ones, excluded); the first ones are
    the same for every n."""
    draw = random.Random(seed)
    edges = [1, 2, 15, 16, 17, 90]
    made = []
    for i in range(n):
        length = edges[i] if i < len(edges) else draw.randint(3, 40)
        made.append([draw.randrange(2, vocab_size) for _ in range(length)])
    return made


@dataclass(frozen=True)
class Answer:
    """What transformers says: n greedy ids, and the logits that each was taken from."""

    ids: list[int]
    logits: torch.Tensor
    """float32 [prompt + n - 1, vocab_size]: of every position, not of the last ones alone"""


@cache
def answer(model_dir: Path, prompt: tuple[int, ...], n: int) -> Answer:
    """Greedy continuation by n ids, without regard to EOS; asserts the gap."""
    model = _model(model_dir)
    ids, past, parts = list(prompt), None, []
    with torch.inference_mode():
        step = list(prompt)
        for _ in range(n):
            out = model(torch.tensor([step]), past_key_values=past, use_cache=True)
            past = out.past_key_values
            parts.append(out.logits[0].float())
            best = parts[-1][-1].topk(2).values
            gap = float(best[0] - best[1])
            assert gap >= GAP, f"{model_dir.name}: gap {gap:.1e}: choose another seed"
            step = [int(parts[-1][-1].argmax())]
            ids += step
    return Answer(ids[len(prompt) :], torch.cat(parts))


def greedy(model_dir: Path, prompt: list[int], n: int) -> list[int]:
    """transformers' greedy continuation by n ids."""
    return answer(model_dir, tuple(prompt), n).ids


def logits(model_dir: Path, prompt: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """float32 [prompt, vocab_size], computed in `dtype`."""
    with torch.inference_mode():
        return _model(model_dir, dtype)(torch.tensor([prompt])).logits[0].float()


@cache
def _model(model_dir: Path, dtype: torch.dtype = torch.float32) -> Any:
    return _transformers().AutoModelForCausalLM.from_pretrained(model_dir, dtype=dtype).eval()


@cache
def _transformers() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own imports
        import transformers
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def rope(kind: str, theta: float, head_dim: int, fields: dict[str, Any]) -> tuple[Any, float]:
    """transformers' inverse frequencies and attention factor for a rope type."""
    transformers = _transformers()
    parameters = {"rope_type": kind, "rope_theta": theta} | fields
    config = transformers.LlamaConfig(
        head_dim=head_dim, max_position_embeddings=4096, rope_parameters=parameters
    )
    rotary = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config)
    return rotary.inv_freq, rotary.attention_scaling


def activation(name: str) -> Any:
    """transformers' function of a `hidden_act`."""
    return _transformers().activations.ACT2FN[name]
