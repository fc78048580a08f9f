"""Gemma 3 (Google), text: five layers with a window and a rotation of their own to one without."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from penstock.errors import UnsupportedError
from penstock.layers.decoder import DecoderPlan
from penstock.layers.rotary import Rope
from penstock.models.common import (
    FULL,
    SLIDING,
    layered_windows,
    optional,
    read_act,
    read_decoder,
)
from penstock.models.config_json import ConfigJson
from penstock.models.rope import read_rope


def read(config: ConfigJson) -> DecoderPlan:
    """Raises CheckpointError and UnsupportedError."""
    every = config.size("sliding_window_pattern", 6)
    layers = range(1, config.size("num_hidden_layers") + 1)
    width = int(optional(config, "sliding_window", 4096))
    windows = layered_windows(config, width, [SLIDING if i % every else FULL for i in layers])
    act = read_act(config, "hidden_activation", "gelu_pytorch_tanh")
    config.take("cache_implementation", str, "")  # transformers' own business
    scale = config.number("query_pre_attn_scalar", 256) ** -0.5
    logit_cap = optional(config, "final_logit_softcapping", 0.0)
    bias = config.flag("attention_bias", False)
    rope, local = read_ropes(config)
    plan = read_decoder(
        config,
        windows=windows,
        qkv_bias=bias,
        out_bias=bias,
        qk_norm=True,
        tied=True,
        head_dim=256,
        rope=rope,
    )
    return replace(
        plan,
        act=act,  # some files have another `hidden_act`, which nobody reads
        norms="both",
        norm_offset=1.0,
        local_rope=local,
        embed_scale=plan.hidden_size**0.5,
        attention_scale=scale,
        logit_softcap=logit_cap,
    )


def read_ropes(config: ConfigJson) -> tuple[tuple[Rope, int], Rope]:
    """The rotation of full layers and its reach, and that of layers with a window. As published,
    `rope_theta` and `rope_scaling` are of the first and `rope_local_base_freq` is of the second."""
    by_kind: dict[str, Any] = config.take("rope_parameters", dict, {})
    if set(by_kind) - {FULL, SLIDING}:
        raise UnsupportedError(
            f"{config.where}: rope_parameters must be given by {FULL} and {SLIDING}, not "
            f"{', '.join(sorted(by_kind))}.",
            param="rope_parameters",
        )
    positions = config.size("max_position_embeddings")
    theta = config.number("rope_theta", 1_000_000.0)
    local_theta = config.number("rope_local_base_freq", 10_000.0)
    scaling = config.take("rope_scaling", dict, {})

    def part(kind: str, theta: float, scaling: dict[str, Any]) -> tuple[Rope, int]:
        raw = {"rope_parameters": by_kind.get(kind), "rope_scaling": scaling}
        return read_rope(ConfigJson(raw, config.where), positions, theta)

    return part(FULL, theta, scaling), part(SLIDING, local_theta, {})[0]
