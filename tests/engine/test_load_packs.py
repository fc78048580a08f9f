"""Weights kept by an earlier start give the same logits, bit for bit, and spare the checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from penstock.config import Config, EngineConfig, ModelConfig
from penstock.engine.build import build_engine
from penstock.engine.clock import MonotonicClock
from penstock.engine.load import Loaded, choose_device, load
from penstock.engine.packs import packs
from penstock.engine.weights import read_config
from penstock.kernels import cpu
from penstock.registry import FORMATS
from tests import oracle
from tests.dense import Sequence

pytestmark = pytest.mark.skipif(cpu.available() is not None, reason=str(cpu.available()))

PROMPT = [5, 17, 200, 31, 4, 99, 250, 7]


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def wide(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen3 (norms by head) whose heads the kernels take."""
    shape = oracle.FAMILIES["qwen3"][0]
    fields = {"head_dim": 16, "tie_word_embeddings": request.param}
    shape = replace(shape, name=f"wide-{request.param}", fields=shape.fields | fields)
    return oracle.make_checkpoint("qwen3", shape, 0, tmp_path_factory.mktemp("wide"))


def config(folder: Path, cache: Path, **model: object) -> Config:
    options = {"weights_cache_dir": str(cache), "dtype": "bfloat16"} | model
    engine = EngineConfig(num_threads=1, max_num_seqs=2)
    return Config(ModelConfig(str(folder), **options), engine).check()  # type: ignore[arg-type]


def loaded(config: Config) -> Loaded:
    folder = Path(config.model.model)
    return load(config, folder, read_config(folder), choose_device(config))


def logits(found: Loaded) -> Tensor:
    model = found.ready(32, 32, 64, 1)
    return Sequence(model, found.backend, 16, torch.bfloat16).feed(PROMPT)


@pytest.mark.parametrize("format", FORMATS.names)
def test_every_bit_is_the_same(wide: Path, tmp_path: Path, format: str) -> None:
    expected = logits(loaded(config(wide, tmp_path, quantization=format, weights_cache=False)))
    for memory in ("mapped", "copied"):
        wanted = config(wide, tmp_path, quantization=format, weights_memory=memory)
        for outcome in ("miss", "hit"):
            found = loaded(wanted)
            assert found.kept.found == outcome
            assert torch.equal(logits(found), expected)
        packs(tmp_path)[0].unlink()


def test_a_hit_reads_no_tensor_of_the_checkpoint(
    wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = config(wide, tmp_path, quantization="int4")
    expected = logits(loaded(wanted))
    monkeypatch.setattr("penstock.engine.load.fill", None)
    assert torch.equal(logits(loaded(wanted)), expected)


def test_the_start_says_what_it_found(wide: Path, tmp_path: Path) -> None:
    for outcome in ("miss", "hit"):
        wanted = config(wide, tmp_path, quantization="int8")
        engine, info = build_engine(wanted, MonotonicClock(), lambda events, stats: None)
        engine.close()
        assert f"load weights (cache {outcome})" in info.stages_s
        assert any(note.startswith(f"weights cache: {outcome}") for note in info.notes)


def test_several_engines_share_pages(wide: Path, tmp_path: Path) -> None:
    alone = config(wide, tmp_path)
    two = replace(alone, engine=replace(alone.engine, data_parallel_size=2))
    logits(loaded(two))
    assert "mapped, shared with other engines" in loaded(two).kept.note
