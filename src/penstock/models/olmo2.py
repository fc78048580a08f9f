"""OLMo 2 (Ai2): norms after each half of a layer and none before, QK-norm over all heads at
once."""

from __future__ import annotations

from dataclasses import replace

from penstock.layers.decoder import DecoderPlan
from penstock.models.common import read_decoder, uniform_windows
from penstock.models.config_json import ConfigJson


def read(config: ConfigJson) -> DecoderPlan:
    """Raises CheckpointError and UnsupportedError."""
    bias = config.flag("attention_bias", False)
    plan = read_decoder(
        config,
        windows=uniform_windows(config, 0),
        qkv_bias=bias,
        out_bias=bias,
        qk_norm=True,
        norm_eps=1e-5,
    )
    return replace(plan, norms="post", whole_qk_norm=True)
