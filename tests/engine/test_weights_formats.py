"""Formats are made from real checkpoints while these are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from penstock.engine.weights import load_model
from penstock.layers.embedding import Embedding
from penstock.layers.linear import Linear
from penstock.models.base import CausalLM
from penstock.quant.int8 import Int8, Int8Matrix
from penstock.registry import ATTENTION_BACKENDS, FORMATS
from tests import oracle
from tests.dense import Sequence
from tests.quant import naive

CPU = torch.device("cpu")
SIZE = oracle.SMALL["hidden_size"]
SHAPES = {shape.name: shape for shape in oracle.FAMILIES["llama"][:3]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return tmp_path_factory.mktemp("formats")


def load(path: Path, name: str, dtype: torch.dtype = torch.float32) -> CausalLM:
    backend = ATTENTION_BACKENDS.load("torch")()
    return load_model(path, dtype, CPU, backend, FORMATS.load(name)())


def logits(model: CausalLM, dtype: torch.dtype, ids: list[int]) -> torch.Tensor:
    return Sequence(model, ATTENTION_BACKENDS.load("torch")(), 16, dtype).feed(ids)


@pytest.mark.parametrize("name", ["int8", "int4"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_family_detail_survives(
    folder: Path, name: str, shape: str, dtype: torch.dtype
) -> None:
    """Fused parts, biases and a tied head: the answers stay near those of the plain model."""
    path = oracle.make_checkpoint("llama", SHAPES[shape], 0, folder)
    ids = oracle.prompts(0, 6, 320)[5]
    plain, found = (logits(load(path, of, dtype), dtype, ids) for of in ("none", name))
    noise = (found - plain).square().mean().sqrt() / plain.std()
    assert 0 < noise < (0.05 if name == "int8" else 0.6)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
def test_each_part_is_quantized_from_its_own_tensor(tmp_path: Path, stored: torch.dtype) -> None:
    path = oracle.make_checkpoint("llama", SHAPES["biases"], 0, tmp_path)
    file = path / "model.safetensors"
    tensors = {name: tensor.to(stored) for name, tensor in load_file(file).items()}
    save_file(tensors, file)
    places = {name: target.into for name, target in load(path, "int8").targets().items()}
    for name, tensor in tensors.items():
        place = places[name]
        if tensor.dim() == 1:
            assert isinstance(place, torch.Tensor)
            assert torch.equal(place, tensor.float())
            continue
        parts = place._parts
        assert parts == (16 if "down" in name or "embed" in name or "head" in name else 1)
        weights = naive.rotate(tensor.float().numpy(), parts) / np.float32(parts)
        q, scales = naive.quantize_weights(weights)
        assert np.array_equal(place._values.numpy(), q), name
        assert np.array_equal(place._scales.numpy(), scales), name


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_a_tied_head_multiplies_with_the_table_that_is_looked_up(folder: Path, name: str) -> None:
    path = oracle.make_checkpoint("llama", SHAPES["tied"], 0, folder)
    targets = load(path, name).targets()
    table = targets["model.embed_tokens.weight"].into
    assert "lm_head.weight" not in targets
    assert table.nbytes == 320 * (SIZE + 4)


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_no_matrix_is_left_out(folder: Path, name: str) -> None:
    path = oracle.make_checkpoint("llama", SHAPES["gqa"], 0, folder)
    for tensor, target in load(path, name).targets().items():
        rows = target.shape[0]
        if len(target.shape) == 1:
            assert target.into.nbytes == 4 * rows
        elif "embed" in tensor or "head" in tensor or name == "int8":
            assert target.into.nbytes == rows * (target.shape[1] + 4)
        else:
            padded = -(-target.shape[1] // 32) * 32
            assert target.into.nbytes == rows * padded * 4.5 / 8


def test_layers_only_ask_their_format() -> None:
    layer = Linear(6, {"a": 2, "b": 3}, True, torch.float32, CPU, Int8())
    assert isinstance(layer.matrix, Int8Matrix)
    assert isinstance(Embedding(5, 4, torch.float32, CPU, Int8()).table, Int8Matrix)
