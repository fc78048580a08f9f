"""SmolLM3: every fourth layer has no position embedding (NoPE, Yang et al. 2025)."""

from __future__ import annotations

from penstock.errors import CheckpointError
from penstock.layers.decoder import DecoderPlan
from penstock.models.common import FULL, SLIDING, layered_windows, read_decoder, sliding_width
from penstock.models.config_json import ConfigJson


def read(config: ConfigJson) -> DecoderPlan:
    """Raises CheckpointError and UnsupportedError."""
    layers = config.size("num_hidden_layers")
    interval = config.size("no_rope_layer_interval", 4)
    by_interval = [int((i + 1) % interval != 0) for i in range(layers)]
    rotary = config.take("no_rope_layers", list, by_interval)  # despite its name, 1 = rotary
    if len(rotary) < layers:
        raise CheckpointError(
            f"{config.where}: no_rope_layers has {len(rotary)} entries for {layers} layers.",
            param="no_rope_layers",
        )
    width = sliding_width(config, 0)
    types = [SLIDING if width and not rotates else FULL for rotates in rotary[:layers]]
    config.take("max_window_layers", int, 0)  # published, and read by nobody
    bias = config.flag("attention_bias", False)
    return read_decoder(
        config,
        windows=layered_windows(config, width, types),
        rotary=tuple(bool(rotates) for rotates in rotary[:layers]),
        qkv_bias=bias,
        out_bias=bias,
        mlp_bias=config.flag("mlp_bias", False),
        tied=True,
        theta=2_000_000.0,
    )
