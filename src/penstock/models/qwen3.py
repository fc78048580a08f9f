"""Qwen3: queries and keys are normalised by head; the last layers may have a window."""

from __future__ import annotations

from penstock.layers.decoder import DecoderPlan
from penstock.models.common import qwen_windows, read_decoder
from penstock.models.config_json import ConfigJson


def read(config: ConfigJson) -> DecoderPlan:
    """head_dim is 128 where the file leaves it out. Raises CheckpointError and UnsupportedError."""
    bias = config.flag("attention_bias", False)
    return read_decoder(
        config,
        windows=qwen_windows(config),
        qkv_bias=bias,
        out_bias=bias,
        qk_norm=True,
        head_dim=128,
    )
