"""Ranks and stages share a checkpoint: each tensor is there once, or where it must be repeated."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from penstock.engine.weights import load_model
from penstock.errors import CheckpointError
from penstock.models.base import CausalLM
from penstock.parallel.ranks import RankGroup
from penstock.parallel.stages import Stage
from penstock.registry import ATTENTION_BACKENDS
from tests import oracle
from tests.engine.test_weights import put

CPU = torch.device("cpu")
SHAPES = {f"{family}-{shape.name}": (family, shape) for family, shape in oracle.shapes()}


def load(path: Path, ranks: RankGroup) -> CausalLM:
    return load_model(path, torch.float32, CPU, ATTENTION_BACKENDS.load("torch")(), ranks=ranks)


def weight_bytes(model: CausalLM) -> int:
    return sum(target.into.nbytes for target in model.targets().values())


@pytest.mark.parametrize("name", ["llama-tied", "llama-biases", "qwen3-head-dim"])
@pytest.mark.parametrize(("size", "stages"), [(2, 1), (4, 1), (1, 2), (2, 2)])
def test_the_parts_are_the_checkpoint(name: str, size: int, stages: int, tmp_path: Path) -> None:
    family, shape = SHAPES[name]
    path = oracle.make_checkpoint(family, shape, 0, tmp_path)
    stored = load_file(path / "model.safetensors")
    seen = {key: torch.zeros_like(tensor, dtype=torch.bool) for key, tensor in stored.items()}
    whole = load(path, RankGroup())
    largest = 0
    for stage in range(stages):
        for rank in range(size):
            model = load(path, RankGroup(rank, size, Stage(stage, stages)))
            largest = max(largest, weight_bytes(model))
            for key, target in model.targets().items():
                assert isinstance(target.into, torch.Tensor)
                part = stored[key][target.index]
                assert torch.equal(target.into, part.expand_as(target.into)), key
                seen[key][target.index] = True
    assert all(mask.all() for mask in seen.values())
    # Norms and, with fewer KV heads than ranks, these are on every rank; layers are not divided,
    # and with a tied table two stages have it.
    assert largest < weight_bytes(whole) / (size * stages) * (1.2 if stages == 1 else 1.7)


def test_an_unknown_layer_is_refused_by_every_stage(tmp_path: Path) -> None:
    """It is not taken for another stage's."""
    path = oracle.make_checkpoint("llama", oracle.FAMILIES["llama"][0], 0, tmp_path)
    put("model.layers.9.mlp.up_proj.weight", torch.ones(2))(path)
    for stage in range(2):
        with pytest.raises(CheckpointError, match=r"layers\.9"):
            load(path, RankGroup(0, 1, Stage(stage, 2)))
