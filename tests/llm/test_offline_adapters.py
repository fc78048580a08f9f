"""Adapters from the command line's options to tokens, over a real engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock import LLM, SamplingParams
from penstock.errors import CheckpointError, ModelNotFoundError
from tests import oracle
from tests.adapters import make_adapter, merge
from tests.server.process import write_checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("adapted"))


def test_requests_choose_an_adapter_by_name(model: Path, tmp_path: Path) -> None:
    first, second = (make_adapter(model, tmp_path, seed) for seed in (1, 2))
    params = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
    options = {"num_threads": 1, "kv_cache_memory_bytes": 1 << 20, "dtype": "float32"}
    modules = (f"first={first.path}", f"second={second.path}")
    prompt = oracle.prompts(1, 3, 512)[2]
    with LLM(str(model), lora_modules=modules, max_lora_rank=8, **options) as llm:
        for name, path in [("first", merge(model, first)), ("second", merge(model, second))]:
            (output,) = llm.generate(prompt, params, use_tqdm=False, adapter=name)
            assert output.outputs[0].token_ids == oracle.greedy(path, prompt, 4)
        (output,) = llm.generate(prompt, params, use_tqdm=False)
        assert output.outputs[0].token_ids == oracle.greedy(model, prompt, 4)
        with pytest.raises(ModelNotFoundError, match="third"):
            llm.generate(prompt, params, use_tqdm=False, adapter="third")


def test_a_folder_that_is_no_adapter_ends_the_start(model: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="adapter_config"):
        LLM(str(model), lora_modules=(f"a={tmp_path}",), kv_cache_memory_bytes=1 << 20)
