"""Architectures without a file of their own, against transformers with its own attention."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from penstock.attention.torch_fast import TorchFast
from penstock.config import Config
from penstock.config.model import ModelConfig
from penstock.core.plan import KVGroup
from penstock.engine.load import load
from penstock.engine.weights import load_model, read_config
from penstock.errors import (
    CheckpointError,
    PenstockError,
    UnknownArchitectureError,
    UnsupportedError,
)
from penstock.models.any import AnyModel
from penstock.models.base import LoadableLM
from penstock.parallel.ranks import RankGroup
from penstock.quant.int8 import Int8
from tests import dense, oracle
from tests.engine import test_mix

CPU = torch.device("cpu")
SHAPES = (
    oracle.Shape("neox", "GPTNeoXConfig"),
    oracle.Shape("starcoder2", "Starcoder2Config", fields={"sliding_window": 9}),
    oracle.Shape("glm", "GlmConfig", fields={"head_dim": 12}),
    oracle.Shape("olmoe", "OlmoeConfig", fields={"num_experts": 4, "num_experts_per_tok": 2}),
    oracle.Shape("nemotron", "NemotronConfig"),
    oracle.Shape("gemma2", "Gemma2Config", fields={"head_dim": 16, "sliding_window": 8}),
    oracle.Shape("cohere", "CohereConfig", 1, {"logit_scale": 1.0}),
)


def loaded(path: Path, dtype: torch.dtype = torch.float32) -> LoadableLM:
    return load_model(path, dtype, CPU, TorchFast(), impl="any")


def made(name: str, folder: Path, **fields: Any) -> Path:
    shape = next(shape for shape in SHAPES if shape.name == name)
    path = oracle.make_checkpoint("any", shape, shape.seed, folder)
    if fields:
        config = path / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | fields))
    return path


@pytest.mark.parametrize("shape", SHAPES[:3], ids=lambda shape: shape.name)
def test_answers_like_transformers(shape: oracle.Shape, folder: Path) -> None:
    dense.check_against_oracle("any", shape, folder, 20, 6, "torch")


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_answers_like_transformers_in_every_mix(shape: oracle.Shape, folder: Path) -> None:
    dense.check_against_oracle("any", shape, folder, 32, 16, "torch")
    test_mix.check("any", shape, test_mix.ALL, folder, "torch")


def test_batches_chunks_and_caches(folder: Path) -> None:
    mixes = [test_mix.COVER[0], test_mix.COVER[4]]
    test_mix.check("any", SHAPES[1], mixes, folder, "torch")


def test_groups_layers_by_window_and_counts_weights(folder: Path) -> None:
    model = loaded(made("gemma2", folder))
    assert isinstance(model, AnyModel)
    assert model.kv_groups == (KVGroup((1,), 0), KVGroup((0,), 8))
    assert (model.num_kv_heads, model.head_dim, model.max_positions) == (2, 16, 512)
    own = load_model(made("gemma2", folder), torch.float32, CPU, TorchFast())
    assert sum(t.nbytes for t in model.targets().values()) == sum(
        t.nbytes for t in own.targets().values()
    )


def test_is_chosen_where_there_is_no_file_of_our_own(folder: Path) -> None:
    path = made("neox", folder)
    config = Config(model=ModelConfig(model=str(path)))
    found = load(config, path, read_config(path), CPU)
    assert isinstance(found.model, AnyModel)
    assert "transformers" in found.how
    ours = replace(config, model=ModelConfig(model=str(path), model_impl="penstock"))
    with pytest.raises(UnknownArchitectureError, match="GPTNeoX"):
        load(ours, path, read_config(path), CPU)


def test_half_precision(folder: Path) -> None:
    """Passes its own proof."""
    assert loaded(made("glm", folder), torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("config", "fields", "why"),
    [
        ("MambaConfig", {}, "attention cannot be replaced"),
        ("GptOssConfig", {"head_dim": 12, "num_local_experts": 4}, "s_aux"),
        ("LlamaConfig", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "dynamic"),
        (
            "Qwen3NextConfig",
            {"num_hidden_layers": 4, "num_experts": 4, "head_dim": 16},
            "linear_attention",
        ),
    ],
)
def test_refuses_what_it_cannot_serve(
    config: str, fields: dict[str, Any], why: str, folder: Path
) -> None:
    shape = oracle.Shape(f"refused-{config}", config, fields=fields)
    with pytest.raises(UnsupportedError, match=why):
        loaded(oracle.make_checkpoint("any", shape, 0, folder))


def test_refuses_modelling_code_that_computes_something_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the code hid a scale of its own in what it does beside our attention."""
    backend = TorchFast()
    attend = backend.attend
    monkeypatch.setattr(backend, "attend", lambda *given: attend(*given) * 1.1)
    with pytest.raises(UnsupportedError, match="something else"):
        load_model(made("neox", folder), torch.float32, CPU, backend, impl="any")


def test_refuses_ranks_and_formats(folder: Path) -> None:
    path = made("neox", folder)
    with pytest.raises(UnsupportedError, match="several processes"):
        load_model(path, torch.float32, CPU, TorchFast(), ranks=RankGroup(0, 2))
    with pytest.raises(UnsupportedError, match="quantization int8"):
        load_model(path, torch.float32, CPU, TorchFast(), Int8())


@pytest.mark.parametrize(
    ("fields", "error", "named"),
    [
        ({"model_type": "new", "auto_map": {"AutoConfig": "x.X"}}, PenstockError, "of its own"),
        ({"attention_chunk_size": 8}, UnsupportedError, "attention_chunk_size"),
        ({"num_hidden_layers": 3}, CheckpointError, "missing keys"),
        ({"num_hidden_layers": 1}, CheckpointError, "unexpected keys"),
        ({"intermediate_size": 81}, CheckpointError, "same checkpoint|read"),
    ],
)
def test_checkpoints_that_contradict_themselves(
    fields: dict[str, Any], error: type[Exception], named: str, tmp_path: Path
) -> None:
    path = made("starcoder2", tmp_path, **fields)
    with pytest.raises(error, match=named):
        loaded(path)


def test_transformers_is_imported_for_it_alone(folder: Path) -> None:
    """Its import takes seconds."""
    shape = oracle.FAMILIES["llama"][0]
    path = oracle.make_checkpoint("llama", shape, 0, folder)
    code = f"""
import sys, torch
from pathlib import Path
from penstock.attention.torch_fast import TorchFast
from penstock.engine.weights import load_model
load_model(Path({str(path)!r}), torch.float32, torch.device("cpu"), TorchFast())
assert "transformers" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
