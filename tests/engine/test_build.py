from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from penstock.config import Config, EngineConfig, ModelConfig
from penstock.engine.build import build_engine
from penstock.engine.client import ModelInfo
from penstock.engine.clock import MonotonicClock
from penstock.errors import CheckpointError, ConfigError, UnknownArchitectureError


def build(
    folder: Path, dtype: str = "auto", context: int | None = None, **engine: Any
) -> ModelInfo:
    options = {"max_num_seqs": 4, "num_threads": 1} | engine
    model = ModelConfig(model=str(folder), dtype=dtype, max_model_len=context)
    config = Config(model, EngineConfig(**options))
    made, info = build_engine(config, MonotonicClock(), lambda events, stats: None)
    made.close()
    return info


def test_what_was_decided_is_told_with_reasons(tiny: Path) -> None:
    info = build(tiny)
    assert (info.max_model_len, info.vocab_size, info.dtype) == (512, 320, "float32")
    assert info.num_blocks * info.block_size >= 4 * 512
    assert info.eos_ids == (1,)
    loading = ["find checkpoint", "load weights", "find hardware", "prepare weights"]
    assert list(info.stages_s) == [*loading, "allocate cache", "warm up"]
    assert any("all requests at full length" in note for note in info.notes)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "up to 256 tokens, 48 of prompts while others decode"),
        ({"max_num_mixed_prefill_tokens": 7}, "up to 256 tokens, 7 of prompts"),
        ({"max_num_mixed_prefill_tokens": 0}, "up to 256 tokens"),
        ({"max_num_batched_tokens": 64}, "up to 64 tokens"),
    ],
)
def test_streams_flow_beside_prompts_unless_the_budget_is_given(
    tiny: Path, options: dict[str, Any], words: str
) -> None:
    assert any(f"a step computes {words}" in note for note in build(tiny, **options).notes)


def test_the_context_is_lowered_to_what_the_cache_holds(tiny: Path) -> None:
    info = build(tiny, kv_cache_memory_bytes=100_000)
    assert info.max_model_len == info.num_blocks * info.block_size < 512
    assert any("lowered" in note for note in info.notes)


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"context": 513}, "max_model_len"),
        ({"context": 512, "kv_cache_memory_bytes": 100_000}, "max_model_len"),
        ({"kv_cache_memory_bytes": 100}, "kv_cache_memory_bytes"),
        ({"block_size": 3}, "block_size"),
        ({"device": "cuda:7"}, "device"),
        ({"device": "toaster"}, "device"),
        ({"attention_backend": "nope"}, None),
    ],
)
def test_contradictions_are_refused_by_the_name_of_the_flag(
    tiny: Path, options: dict[str, Any], param: str | None
) -> None:
    with pytest.raises(ConfigError) as error:
        build(tiny, **options)
    assert error.value.param == param


def copy_with(folder: Path, to: Path, **changes: Any) -> Path:
    shutil.copytree(folder, to)
    config = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps(config | changes))
    return to


def test_an_unknown_architecture_is_refused_with_the_known_ones(tiny: Path, tmp_path: Path) -> None:
    folder = copy_with(tiny, tmp_path / "x", architectures=["GptNeverForCausalLM"])
    with pytest.raises(UnknownArchitectureError, match="LlamaForCausalLM"):
        build(folder)


def test_a_truncated_checkpoint_is_refused(tiny: Path, tmp_path: Path) -> None:
    folder = copy_with(tiny, tmp_path / "x")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="damaged or incomplete"):
        build(folder)


def test_a_strange_dtype_is_refused(tiny: Path, tmp_path: Path) -> None:
    folder = copy_with(tiny, tmp_path / "x", dtype="float8_e5m2")
    with pytest.raises(CheckpointError, match="--dtype"):
        build(folder)


def test_end_ids_come_from_the_generation_config(tiny: Path, tmp_path: Path) -> None:
    folder = copy_with(tiny, tmp_path / "x")
    (folder / "generation_config.json").write_text('{"eos_token_id": [5, 6]}')
    assert build(folder).eos_ids == (5, 6)
    (folder / "generation_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="generation_config"):
        build(folder)


def test_an_int8_cache_takes_its_bytes_and_has_hashes_of_its_own(tiny: Path) -> None:
    plain, short, narrow = (build(tiny, kv_cache_dtype=k) for k in ("auto", "fp32", "int8"))
    assert plain.cache_key == short.cache_key != narrow.cache_key
    dim = 12
    assert narrow.num_blocks == plain.num_blocks
    assert narrow.kv_cache_bytes * dim * 4 == plain.kv_cache_bytes * (dim + 4)
    assert any("blocks, int8 (" in note for note in narrow.notes)
