"""Mistral 7B and its successors of the same architecture: Llama with one window for all layers."""

from __future__ import annotations

from penstock.layers.decoder import DecoderPlan
from penstock.models.common import read_decoder, uniform_windows
from penstock.models.config_json import ConfigJson


def read(config: ConfigJson) -> DecoderPlan:
    """`sliding_window` is 4,096 where the field is missing, and null means full attention.

    Raises CheckpointError and UnsupportedError.
    """
    default = 0 if "sliding_window" in config.raw else 4096
    window = config.take("sliding_window", int, default)
    return read_decoder(config, windows=uniform_windows(config, window))
