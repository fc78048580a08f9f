"""Phi-3, Phi-3.5 mini and Phi-4 (Microsoft): fused projections, and in the long versions longrope
on a part of each head."""

from __future__ import annotations

from dataclasses import replace

from penstock.errors import UnsupportedError
from penstock.layers.decoder import DecoderPlan
from penstock.models.common import optional, read_decoder, uniform_windows
from penstock.models.config_json import ConfigJson


def read(config: ConfigJson) -> DecoderPlan:
    """A window that is no narrower than the context is none. Raises CheckpointError and
    UnsupportedError."""
    for name in ("full_attn_mod", "interpolate_factor"):  # published, and read by nobody
        if config.take(name, int, 1) != 1:
            raise UnsupportedError(f"{config.where}: {name} is not supported.", param=name)
    config.take("original_max_position_embeddings", int, 0)  # without longrope it means nothing
    width = int(optional(config, "sliding_window", 0))
    if width >= config.size("max_position_embeddings"):
        width = 0
    windows = uniform_windows(config, width)
    plan = read_decoder(config, windows=windows, norm_eps=1e-5, partial_rotary=True)
    return replace(plan, joined=True)
