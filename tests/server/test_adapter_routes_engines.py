"""Adapters over a real server with several engines, each of which loads what its requests need."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import oracle
from tests.adapters import make_adapter, merge
from tests.server.process import serving

NEW = 6


@pytest.mark.slow
@pytest.mark.parametrize("flags", [("--data-parallel-size", "2"), ("--tensor-parallel-size", "2")])
def test_every_request_gets_its_adapters_tokens(
    flags: tuple[str, str], checkpoint: Path, tmp_path: Path
) -> None:
    first, second = (make_adapter(checkpoint, tmp_path, seed) for seed in (1, 2))
    models = {
        "tiny": checkpoint,
        "first": merge(checkpoint, first),
        "second": merge(checkpoint, second),
    }
    asked = []
    for i, prompt in enumerate(oracle.prompts(1, 14, 500)):
        for name in list(models)[i % 3 :] + list(models)[: i % 3]:
            try:
                asked.append((name, prompt, oracle.greedy(models[name], prompt, NEW)))
            except AssertionError:
                continue
    assert len(asked) >= 20
    options = ["--served-model-name", "tiny", "--allow-runtime-lora-updating", *flags]
    options += ["--lora-modules", f"first={first.path}", "--max-lora-rank", "8"]
    options += ["--kv-cache-memory-bytes", "2MiB", "--num-threads", "1", "--dtype", "float32"]
    options += ["--data-dir", str(tmp_path / "data")]
    with serving(checkpoint, tmp_path / "output", *options) as server:

        def post(path: str, **body: Any) -> Any:
            answer = httpx.post(f"{server.url}/v1/{path}", json=body, timeout=90)
            assert answer.status_code == 200, answer.text
            return answer.json()

        def tokens(model: str, prompt: list[int]) -> Any:
            body = {"max_tokens": NEW, "temperature": 0, "ignore_eos": True}
            body |= {"return_token_ids": True}
            choice = post("completions", model=model, prompt=prompt, **body)["choices"][0]
            return choice["token_ids"]

        post("load_lora_adapter", lora_name="second", lora_path=second.path)
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda each: tokens(*each[:2]), asked))
        assert found == [ids for _, _, ids in asked]
        post("unload_lora_adapter", lora_name="second")
