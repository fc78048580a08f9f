"""Gemma 2 (Google): norms before and after each half of a layer, soft caps, every other layer with
a window."""

from __future__ import annotations

from dataclasses import replace

from penstock.layers.decoder import DecoderPlan
from penstock.models.common import (
    FULL,
    SLIDING,
    layered_windows,
    optional,
    read_act,
    read_decoder,
)
from penstock.models.config_json import ConfigJson


def read(config: ConfigJson) -> DecoderPlan:
    """Raises CheckpointError and UnsupportedError."""
    layers = range(config.size("num_hidden_layers"))
    width = int(optional(config, "sliding_window", 4096))
    windows = layered_windows(config, width, [FULL if i % 2 else SLIDING for i in layers])
    act = read_act(config, "hidden_activation", "gelu_pytorch_tanh")
    config.take("cache_implementation", str, "")  # transformers' own business
    scale = config.number("query_pre_attn_scalar", 256) ** -0.5
    attention_cap = optional(config, "attn_logit_softcapping", 50.0)
    logit_cap = optional(config, "final_logit_softcapping", 30.0)
    bias = config.flag("attention_bias", False)
    plan = read_decoder(
        config,
        windows=windows,
        qkv_bias=bias,
        out_bias=bias,
        tied=True,
        head_dim=256,
    )
    return replace(
        plan,
        act=act,  # some files have another `hidden_act`, which nobody reads
        norms="both",
        norm_offset=1.0,
        embed_scale=plan.hidden_size**0.5,
        attention_scale=scale,
        attention_softcap=attention_cap,
        logit_softcap=logit_cap,
    )
