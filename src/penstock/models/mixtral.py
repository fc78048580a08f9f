"""Mixtral (Mistral AI): Mistral with experts in every layer."""

from __future__ import annotations

from dataclasses import replace

from penstock.layers.decoder import DecoderPlan
from penstock.layers.moe import Experts
from penstock.models.common import check_experts, optional, read_decoder, uniform_windows
from penstock.models.config_json import ConfigJson


def read(config: ConfigJson) -> DecoderPlan:
    """Raises CheckpointError and UnsupportedError."""
    count = config.size("num_local_experts", 8)
    top_k = config.size("num_experts_per_tok", 2)
    check_experts(config, count, top_k)
    window = int(optional(config, "sliding_window", 0))
    windows = uniform_windows(config, window)
    plan = read_decoder(config, windows=windows, theta=1e6, norm_eps=1e-5)
    experts = Experts(count, plan.mlp_size, top_k, True, "block_sparse_moe", ("w1", "w3", "w2"))
    return replace(plan, experts=experts, sparse=(True,) * len(windows))
