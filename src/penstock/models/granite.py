"""Granite 3 (IBM), dense: Llama with multipliers, so that sizes share one set of hyperparameters
(maximal update parametrization, Yang et al. 2022)."""

from __future__ import annotations

from dataclasses import replace

from penstock.errors import CheckpointError
from penstock.layers.decoder import DecoderPlan
from penstock.models.common import read_decoder, uniform_windows
from penstock.models.config_json import ConfigJson


def read(config: ConfigJson) -> DecoderPlan:
    """Raises CheckpointError and UnsupportedError."""
    embed = config.number("embedding_multiplier", 1.0)
    residual = config.number("residual_multiplier", 1.0)
    attention = config.number("attention_multiplier", 1.0)
    divisor = config.number("logits_scaling", 1.0)
    if not divisor:
        raise CheckpointError(
            f"{config.where}: logits_scaling must not be 0.", param="logits_scaling"
        )
    bias = config.flag("attention_bias", False)
    plan = read_decoder(
        config,
        windows=uniform_windows(config, 0),
        qkv_bias=bias,
        out_bias=bias,
        mlp_bias=config.flag("mlp_bias", False),
    )
    return replace(
        plan,
        embed_scale=embed,
        residual_scale=residual,
        attention_scale=attention,
        logit_scale=1 / divisor,
    )
