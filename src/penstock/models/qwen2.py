"""Qwen2 and Qwen2.5: Llama with biased query, key and value projections; the last layers may have
a window."""

from __future__ import annotations

from penstock.layers.decoder import DecoderPlan
from penstock.models.common import qwen_windows, read_decoder
from penstock.models.config_json import ConfigJson


def read(config: ConfigJson) -> DecoderPlan:
    """Raises CheckpointError and UnsupportedError."""
    return read_decoder(config, windows=qwen_windows(config), qkv_bias=True)
