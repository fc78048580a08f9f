"""Llama 2 and 3.x (Meta), and everything published in their shape, such as SmolLM2."""

from __future__ import annotations

from penstock.layers.decoder import DecoderPlan
from penstock.models.common import read_decoder, uniform_windows
from penstock.models.config_json import ConfigJson


def read(config: ConfigJson) -> DecoderPlan:
    """Optional biases; full attention. Raises CheckpointError and UnsupportedError."""
    attention_bias = config.flag("attention_bias", False)
    return read_decoder(
        config,
        windows=uniform_windows(config, 0),
        qkv_bias=attention_bias,
        out_bias=attention_bias,
        mlp_bias=config.flag("mlp_bias", False),
    )
