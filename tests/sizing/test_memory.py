"""Forecast bytes against those that the engine allocates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import penstock
from penstock.attention.torch_reference import TorchReference
from penstock.engine.kv import allocate_caches
from penstock.engine.kv import block_bytes as engine_block_bytes
from penstock.engine.weights import read_config, read_plan
from penstock.registry import FORMATS
from penstock.sizing.hardware import table
from penstock.sizing.memory import (
    activation_bytes,
    block_bytes,
    kv_bytes_per_token,
    plan_memory,
    weight_bytes,
)
from penstock.sizing.precision import PRECISIONS
from penstock.sizing.shape import read_shape
from tests import oracle
from tests.sizing.models import LLAMA_8B, LLAMA_70B, MIXTRAL, shape

DEMO = Path(penstock.__file__).parent / "demo" / "model"
CPU = torch.device("cpu")
CASES = {
    "llama": lambda tmp: _checkpoint("llama", tmp),
    "qwen3": lambda tmp: _checkpoint("qwen3", tmp),
    "demo": lambda tmp: DEMO,
}


def _checkpoint(family: str, tmp: Path) -> Path:
    case = oracle.FAMILIES[family][0]
    return oracle.make_checkpoint(family, case, case.seed, tmp)


@pytest.mark.parametrize(
    ("number", "dtype", "format"),
    [
        ("fp32", torch.float32, "none"),
        ("bf16", torch.bfloat16, "none"),
        ("int8", torch.bfloat16, "int8"),
        ("int4", torch.bfloat16, "int4"),
    ],
)
@pytest.mark.parametrize("name", CASES)
def test_weights_and_cache_are_what_the_engine_allocates(
    name: str, number: str, dtype: torch.dtype, format: str, tmp_path: Path
) -> None:
    """Within 5% is asked; what is counted must be exact."""
    folder = CASES[name](tmp_path)
    raw, forecast = read_config(folder), PRECISIONS[number]
    found = read_shape((folder / "config.json").read_text())
    plan = read_plan(raw, folder / "config.json")
    model = plan.build(dtype, CPU, TorchReference(), FORMATS.load(format)())
    stored = sum(target.into.nbytes for target in model.targets().values())
    assert weight_bytes(found, forecast) == stored
    groups = (model.kv_groups, 16, model.num_kv_heads, model.head_dim, dtype)
    assert block_bytes(found, forecast, 16) == engine_block_bytes(*groups)
    caches = allocate_caches(
        TorchReference(), model.kv_groups, 8, 16, model.num_kv_heads, model.head_dim, dtype, CPU
    )
    held = sum({c.data_ptr(): c.nbytes for c in caches}.values())
    assert held == pytest.approx(8 * block_bytes(found, forecast, 16), rel=0.05)


def test_known_kv_sizes() -> None:
    """Llama 3 8B in bf16: 128 KiB a token; 70B: 320 KiB."""
    assert kv_bytes_per_token(shape(LLAMA_8B), PRECISIONS["bf16"]) == 128 * 1024
    assert kv_bytes_per_token(shape(LLAMA_70B), PRECISIONS["bf16"]) == 320 * 1024


def test_parallel_ranks_share() -> None:
    model, bf16 = shape(LLAMA_70B), PRECISIONS["bf16"]
    whole = weight_bytes(model, bf16)
    assert weight_bytes(model, bf16, tp=4) == pytest.approx(whole / 4, rel=0.01)
    assert weight_bytes(model, bf16, pp=2) == pytest.approx(whole / 2, rel=0.03)
    assert kv_bytes_per_token(model, bf16, tp=16) == kv_bytes_per_token(model, bf16, tp=8)


def test_what_does_not_fit_tells_what_is_missing() -> None:
    devices = table()
    bf16 = PRECISIONS["bf16"]
    tight = plan_memory(shape(LLAMA_70B), bf16, devices["H100"], 1, 1, 2048, 256)
    assert not tight.fits
    assert tight.missing_bytes == pytest.approx(141e9 + 1.5e9 - 76e9, rel=0.05)
    split = plan_memory(shape(LLAMA_70B), bf16, devices["H100"], 4, 1, 2048, 256)
    assert split.fits
    assert split.kv_tokens * kv_bytes_per_token(shape(LLAMA_70B), bf16, 4) <= split.kv_bytes
    mixture = weight_bytes(shape(MIXTRAL), bf16)
    assert mixture == pytest.approx(2 * 46.7e9, rel=0.01)


def test_activations_bound_a_step() -> None:
    """The logits of 64 rows of the demo's vocabulary, twice in float32, are part of it."""
    demo = read_shape(json.dumps(json.loads((DEMO / "config.json").read_text())))
    bytes_ = activation_bytes(demo, PRECISIONS["bf16"], 256, 64)
    assert bytes_ > 2 * 64 * 4096 * 4
    assert activation_bytes(demo, PRECISIONS["bf16"], 512, 64) > bytes_
