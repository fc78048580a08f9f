from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from penstock.config import Config, EngineConfig, ModelConfig
from penstock.engine.load import Loaded, choose_device, load, refusal
from penstock.engine.weights import read_config, read_plan
from penstock.errors import UnsupportedError
from penstock.kernels import cpu
from penstock.layers.decoder import Decoder, DecoderPlan
from penstock.layers.native import NativeDecoder
from tests import oracle

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama whose heads the kernels take."""
    shape = oracle.FAMILIES["llama"][0]
    shape = replace(shape, name="wide", fields={"head_dim": 16})
    return oracle.make_checkpoint("llama", shape, 0, tmp_path_factory.mktemp("wide"))


def loaded(folder: Path, backend: str = "auto", **model: Any) -> Loaded:
    config = Config(ModelConfig(str(folder), **model), EngineConfig(attention_backend=backend))
    return load(config, folder, read_config(folder), choose_device(config))


def test_auto_takes_the_kernels_where_they_run(wide: Path) -> None:
    found = loaded(wide)
    native = cpu.available() is None
    assert found.backend.name == ("cpu" if native else "torch")
    model = found.ready(64, 4, 128, 1)
    assert isinstance(model, NativeDecoder if native else Decoder)
    assert ("bit for bit" if native else "not bitwise") in found.how


def test_torch_computes_what_the_kernels_lack_and_says_why(tiny: Path) -> None:
    found = loaded(tiny)
    assert found.backend.name == "torch"
    assert "no heads of 12" in found.how
    assert found.ready(64, 4, 128, 1) is found.model


def test_asking_for_the_kernels_where_they_cannot_is_refused(tiny: Path) -> None:
    with pytest.raises(UnsupportedError, match="no heads of 12"):
        loaded(tiny, backend="cpu")


def test_the_format_is_told(wide: Path) -> None:
    note = loaded(wide, quantization="int8").weights_note([2**20, 2**19])
    assert note == "weights of 1.0 + 0.5 MiB, quantized at load to int8"


def test_every_reason_against_the_kernels(wide: Path) -> None:
    plan = read_plan(read_config(wide), wide / "config.json")
    assert isinstance(plan, DecoderPlan)
    assert "cuda" in str(refusal(plan, torch.float32, torch.device("cuda")))
    assert "float16" in str(refusal(plan, torch.float16, CPU))
    assert "gelu" in str(refusal(replace(plan, act="gelu"), torch.float32, CPU))
    assert "heads of 24" in str(refusal(replace(plan, head_dim=24), torch.float32, CPU))
