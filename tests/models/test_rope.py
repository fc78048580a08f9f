from __future__ import annotations

from typing import Any

import pytest

from penstock.errors import CheckpointError, UnsupportedError
from penstock.layers.rotary import Rope, yarn_attention_factor
from penstock.models.config_json import ConfigJson
from penstock.models.rope import read_rope

LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def read(raw: dict[str, Any], max_positions: int = 1024) -> tuple[Rope, int]:
    config = ConfigJson(raw)
    found = read_rope(config, max_positions, 10000.0)
    config.finish()
    return found


def test_theta_from_everywhere() -> None:
    assert read({}) == (Rope(10000.0), 1024)
    assert read({"rope_theta": 500000, "rope_scaling": None})[0] == Rope(500000.0)
    assert read({"rope_parameters": {"rope_theta": 7.0, "rope_type": "default"}})[0] == Rope(7.0)
    assert read({"rope_theta": 3.0, "rope_parameters": {"rope_theta": 7.0}})[0] == Rope(7.0)


@pytest.mark.parametrize("kind", ["linear", "dynamic", "llama3", "yarn"])
def test_published_and_new_files_mean_the_same(kind: str) -> None:
    fields = LLAMA3 if kind == "llama3" else {"factor": 4.0}
    old = read({"rope_theta": 5.0, "rope_scaling": {"type": kind} | fields})
    new = read({"rope_parameters": {"rope_type": kind, "rope_theta": 5.0} | fields})
    assert old == new
    assert old[0].kind == kind


def test_reach() -> None:
    """Qwen's yarn files may state the original context as max_position_embeddings."""
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}
    assert read({"rope_scaling": yarn})[1] == 1024
    assert read({"rope_scaling": yarn}, 256)[1] == 1024
    assert read({"rope_scaling": {"type": "linear", "factor": 4.0}})[1] == 4096
    assert read({"rope_scaling": {"type": "dynamic", "factor": 4.0}})[1] == 1024


def test_yarn_reads_all_its_fields() -> None:
    yarn = {"rope_type": "yarn", "factor": 4.0, "beta_fast": 8, "beta_slow": 2, "truncate": False}
    rope, _ = read({"rope_scaling": yarn | {"mscale": 1.2, "mscale_all_dim": 0.7}})
    assert (rope.beta_fast, rope.beta_slow, rope.truncate) == (8.0, 2.0, False)
    assert rope.original_max == 1024
    assert rope.attention_factor == yarn_attention_factor(4.0, 1.2, 0.7)
    assert read({"rope_scaling": yarn | {"attention_factor": 1.5}})[0].attention_factor == 1.5
    assert read({"rope_scaling": {"type": "yarn"}, "original_max_position_embeddings": 256})[
        0
    ].factor == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        ({"rope_scaling": {"type": "ntk", "factor": 2.0}}, "ntk"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0, "beta": 1}}, "beta"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1.0}}}, "full_attention"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"rope_parameters": {"partial_rotary_factor": 0.25}}, "partial_rotary_factor"),
    ],
)
def test_what_would_change_the_answer_is_refused_by_name(raw: dict[str, Any], named: str) -> None:
    with pytest.raises(UnsupportedError, match=named):
        read(raw)


@pytest.mark.parametrize("kind", ["linear", "llama3"])
def test_a_missing_factor_is_a_damaged_checkpoint(kind: str) -> None:
    with pytest.raises(CheckpointError, match="factor"):
        read({"rope_scaling": {"rope_type": kind}})


@pytest.mark.parametrize(
    "fields",
    [
        {"rope_type": "linear", "factor": 0.0},
        {"rope_type": "default", "rope_theta": 0},
        LLAMA3 | {"rope_type": "llama3", "low_freq_factor": 4.0},
    ],
)
def test_senseless_numbers_are_a_damaged_checkpoint(fields: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="make no sense"):
        read({"rope_scaling": fields})


LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0, 2.0],
    "long_factor": [3.0, 4.0],
    "original_max_position_embeddings": 256,
}


def test_longrope_takes_the_set_of_the_longest_request() -> None:
    rope, reach = read({"rope_scaling": LONGROPE})
    assert (rope.factors, rope.factor, reach) == ((3.0, 4.0), 4.0, 1024)
    assert rope.attention_factor == pytest.approx((1 + 2 / 8) ** 0.5)
    short = ConfigJson({"rope_scaling": LONGROPE}, longest=256)
    assert read_rope(short, 1024, 10000.0)[0].factors == (1.0, 2.0)


@pytest.mark.parametrize("factors", [[], [0.0, 1.0], ["1", 2.0]])
def test_senseless_factors_are_a_damaged_checkpoint(factors: list[Any]) -> None:
    with pytest.raises(CheckpointError, match="long_factor"):
        read({"rope_scaling": LONGROPE | {"long_factor": factors}})


def test_a_part_of_each_head_where_the_family_has_it() -> None:
    config = ConfigJson({"rope_parameters": {"partial_rotary_factor": 0.25}})
    assert read_rope(config, 64, 10000.0, partial=True)[0].size(64) == 16
