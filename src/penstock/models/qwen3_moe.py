"""Qwen3 with experts: many small ones in most layers, or in all."""

from __future__ import annotations

from dataclasses import replace

from penstock.layers.decoder import DecoderPlan
from penstock.layers.moe import Experts
from penstock.models.common import check_experts, read_decoder, sliding_width, uniform_windows
from penstock.models.config_json import ConfigJson


def read(config: ConfigJson) -> DecoderPlan:
    """Raises CheckpointError and UnsupportedError."""
    count = config.size("num_experts", config.take("num_local_experts", int, 128))
    top_k = config.size("num_experts_per_tok", 8)
    check_experts(config, count, top_k)
    size = config.size("moe_intermediate_size", 768)
    normalised = config.flag("norm_topk_prob", False)
    step = config.size("decoder_sparse_step", 1)
    dense = config.take("mlp_only_layers", list, [])
    windows = uniform_windows(config, sliding_width(config, 4096))
    config.take("max_window_layers", int, 0)  # published, and read by nobody
    sparse = tuple(i not in dense and (i + 1) % step == 0 for i in range(len(windows)))
    bias = config.flag("attention_bias", False)
    plan = read_decoder(config, windows=windows, qkv_bias=bias, out_bias=bias, qk_norm=True)
    return replace(plan, experts=Experts(count, size, top_k, normalised), sparse=sparse)
