"""With an int8 cache as well: the same tokens for every mix of chunk size, prefix cache, batch,
preemption and depth, those of a request alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from penstock.engine.load import NATIVE
from penstock.kernels import cpu
from penstock.registry import FORMATS
from tests import oracle
from tests.dense import generate
from tests.engine.test_mix import ALL, COVER, NEW, Mix, prepare, run

GAP = 0.05
"""Least distance of the two best logits where torch's ids are compared: the last bits of its
attention differ between batches, which may carry a key over to the next of its 255 levels."""
SHAPES = {
    "windows": ("qwen3", oracle.FAMILIES["qwen3"][3]),
    "window": ("mistral", oracle.FAMILIES["mistral"][0]),
    "plain": ("llama", oracle.FAMILIES["llama"][0]),
}


def check(name: str, format: str, attention: str, mixes: list[Mix], folder: Path) -> None:
    torch.set_num_threads(1)
    family, shape = SHAPES[name]
    if attention == NATIVE:
        if (reason := cpu.available()) is not None:
            pytest.skip(reason)
        shape = replace(shape, fields=shape.fields | {"head_dim": 32})  # also on AMX tiles
    path = oracle.make_checkpoint(family, shape, shape.seed, folder)
    model, backend = prepare(path, attention, FORMATS.load(format)())
    prompts, expected = [], []
    for prompt in oracle.prompts(0, 24, model.vocab_size):
        ids, logits = generate(model, backend, prompt, NEW, dtype=torch.int8)
        best = logits[len(prompt) - 1 :].topk(2).values
        if attention == NATIVE or (best[:, 0] - best[:, 1]).min() > GAP:
            prompts.append(prompt)
            expected.append(ids)
    assert len(prompts) >= 10
    for mix in mixes:
        out, preemptions = run(model, backend, mix, prompts, kv=torch.int8)
        assert out == expected, mix
        assert not mix.preempt or preemptions, f"{mix} preempted nobody"


@pytest.mark.parametrize(
    ("name", "format", "attention"),
    [
        ("windows", "none", NATIVE),
        ("window", "int8", NATIVE),
        ("plain", "int4", NATIVE),
        ("windows", "none", "torch"),
    ],
)
def test_the_same_tokens_for_a_cover_of_mixes(
    name: str, format: str, attention: str, tmp_path: Path
) -> None:
    check(name, format, attention, COVER, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("attention", [NATIVE, "torch"])
@pytest.mark.parametrize("format", FORMATS.names)
@pytest.mark.parametrize("name", SHAPES)
def test_the_same_tokens_for_every_mix(
    name: str, format: str, attention: str, tmp_path: Path
) -> None:
    check(name, format, attention, ALL, tmp_path)
