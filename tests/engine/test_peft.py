"""What an adapter on disk may be; what it computes is tested in test_mix_adapters.py."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from penstock.engine import peft
from penstock.errors import CheckpointError, PenstockError, UnsupportedError
from tests import oracle
from tests.adapters import make_adapter, room


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = oracle.FAMILIES["llama"][0]
    return oracle.make_checkpoint("llama", shape, 0, tmp_path_factory.mktemp("peft"))


def test_scale_by_alpha_and_rank(model: Path, tmp_path: Path) -> None:
    plain = make_adapter(model, tmp_path, 1, rank=4, lora_alpha=6)
    assert peft.read_scale(Path(plain.path), 8) == (4, 1.5)
    stable = make_adapter(model, tmp_path, 2, rank=4, lora_alpha=6, use_rslora=True)
    assert peft.read_scale(Path(stable.path), 8) == (4, 3.0)


def test_the_digest_is_of_the_content_alone(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    one, same = make_adapter(model, tmp_path, 1), make_adapter(model, other, 1)
    assert (one.digest, one.path != same.path) == (same.digest, True)
    assert make_adapter(model, tmp_path, 2).digest != one.digest
    assert make_adapter(model, tmp_path, 1, lora_alpha=3).digest != one.digest


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"peft_type": "IA3"}, "LORA"),
        ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 2}}, "alpha_pattern"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"r": 9}, "--max-lora-rank is 8"),
        ({"r": None}, "'r'"),
        ({"r": 3}, "asks for"),
    ],
)
def test_refuses_by_name(model: Path, tmp_path: Path, fields: dict[str, Any], named: str) -> None:
    with pytest.raises(PenstockError, match=named):
        make_adapter(model, tmp_path, 1, **fields)


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.lm_head.lora_A.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector.weight",
        "base_model.model.model.layers.7.self_attn.q_proj.lora_A.weight",
        "base_model.model.model.layers.0.self_attn.qkv_proj.lora_A.weight",
    ],
)
def test_refuses_tensors_without_a_place(model: Path, tmp_path: Path, name: str) -> None:
    adapter = make_adapter(model, tmp_path, 1)
    file = Path(adapter.path) / peft.WEIGHTS
    save_file(load_file(file) | {name: torch.zeros(4, 48)}, file)
    with pytest.raises(UnsupportedError, match=name.replace(".", r"\.")):
        peft.check("a", adapter.path, room(model))


@pytest.mark.parametrize("missing", [peft.CONFIG, peft.WEIGHTS])
def test_a_folder_that_is_no_adapter(model: Path, tmp_path: Path, missing: str) -> None:
    adapter = make_adapter(model, tmp_path, 1)
    (Path(adapter.path) / missing).unlink()
    with pytest.raises(CheckpointError, match=missing):
        peft.check("a", adapter.path, room(model))
    (Path(adapter.path) / missing).write_text(json.dumps([1]))
    with pytest.raises(CheckpointError, match=missing):
        peft.check("a", adapter.path, room(model))


def test_of_another_model(model: Path, tmp_path: Path) -> None:
    adapter, other = make_adapter(model, tmp_path, 1), room(model)
    wide = {name: (out, 2 * size) for name, (out, size) in other.matrices.items()}
    with pytest.raises(CheckpointError, match="not of this model"):
        peft.check("a", adapter.path, replace(other, matrices=wide))


def test_half_a_pair(model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(model, tmp_path, 1)
    file = Path(adapter.path) / peft.WEIGHTS
    tensors = load_file(file)
    tensors.pop("base_model.model.model.layers.1.mlp.down_proj.lora_B.weight")
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match="half of down_proj"):
        peft.check("a", adapter.path, room(model))
