"""Fields that all families read."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.errors import CheckpointError, UnsupportedError
from penstock.models.common import qwen_windows, read_decoder, uniform_windows
from penstock.models.config_json import ConfigJson

RAW = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "intermediate_size": 96,
    "vocab_size": 100,
    "max_position_embeddings": 512,
}
FULL, SLIDING = "full_attention", "sliding_attention"


def config(**fields: Any) -> ConfigJson:
    return ConfigJson(RAW | fields)


def test_defaults() -> None:
    made = config()
    plan = read_decoder(made, windows=uniform_windows(made, 0))
    assert (plan.num_kv_heads, plan.head_dim, plan.norm_eps, plan.act) == (4, 16, 1e-6, "silu")
    assert plan.windows == (0, 0, 0)
    assert plan.rotary == (True, True, True)
    assert not plan.tied


@pytest.mark.parametrize(
    ("fields", "error", "named"),
    [
        ({"num_key_value_heads": 3}, CheckpointError, "3 KV heads"),
        ({"head_dim": 15}, UnsupportedError, "head_dim"),
        ({"hidden_act": "relu2"}, UnsupportedError, "relu2"),
        ({"vocab_size": None}, CheckpointError, "vocab_size"),
        ({"final_logit_softcapping": 30.0}, UnsupportedError, "final_logit_softcapping"),
        ({"layer_types": [SLIDING] * 3}, UnsupportedError, "layer_types"),
    ],
)
def test_refusals(fields: dict[str, Any], error: type[Exception], named: str) -> None:
    made = config(**fields)
    with pytest.raises(error, match=named):
        read_decoder(made, windows=uniform_windows(made, 0))


def test_qwen_windows_by_rule_and_by_list() -> None:
    def windows(**fields: Any) -> tuple[int, ...]:
        return qwen_windows(config(**fields))

    assert windows(sliding_window=8) == (0, 0, 0)
    assert windows(sliding_window=8, use_sliding_window=True) == (0, 0, 0)
    assert windows(sliding_window=8, use_sliding_window=True, max_window_layers=1) == (0, 8, 8)
    assert windows(use_sliding_window=True, max_window_layers=2) == (0, 0, 4096)
    assert windows(use_sliding_window=True, max_window_layers=2, sliding_window=None) == (0, 0, 0)
    listed = {"layer_types": [SLIDING, FULL, SLIDING], "use_sliding_window": True}
    assert windows(sliding_window=8, **listed) == (8, 0, 8)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"layer_types": [FULL]}, UnsupportedError),
        ({"layer_types": [FULL, FULL, "linear_attention"]}, UnsupportedError),
        ({"layer_types": [SLIDING] * 3, "sliding_window": 8}, CheckpointError),
        (
            {"layer_types": [SLIDING] * 3, "use_sliding_window": True, "sliding_window": None},
            CheckpointError,
        ),
    ],
)
def test_window_refusals(fields: dict[str, Any], error: type[Exception]) -> None:
    made = config(**fields)
    with pytest.raises(error, match="layer_types"):
        qwen_windows(made)
