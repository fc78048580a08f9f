"""Qwen2 and Qwen2.5: Llama with biased query, key and value projections; the last layers may have
a window."""

from __future__ import annotations

from penstock.layers.decoder import DecoderPlan
from penstock.models.common import layered_windows, qwen_layer_types, read_decoder
from penstock.models.config_json import ConfigJson


def read(config: ConfigJson) -> DecoderPlan:
    """Raises CheckpointError and UnsupportedError."""
    windows = layered_windows(config, qwen_layer_types(config))
    return read_decoder(config, windows=windows, qkv_bias=True)
