"""With quantized weights as well: the same tokens for every mix of chunk size, prefix cache,
batch, preemption and depth."""

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
from tests.engine.test_mix import COVER, NEW, prepare, run

GAP = 0.05
"""Least distance of the two best logits where torch's ids are compared: its attention differs in
its last bits between batches of different shape, which may carry an activation over to the next
of its 255 levels. The kernels' are bitwise, and compared without a gap."""


@pytest.mark.parametrize("attention", ["torch", NATIVE])
@pytest.mark.parametrize("name", ["int8", "int4"])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_the_same_tokens_for_a_cover_of_mixes(
    name: str, family: str, attention: str, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    shape = oracle.FAMILIES[family][-1]
    if attention == NATIVE:
        if (reason := cpu.available()) is not None:
            pytest.skip(reason)
        shape = replace(shape, fields=shape.fields | {"head_dim": 16})
    path = oracle.make_checkpoint(family, shape, shape.seed, tmp_path)
    model, backend = prepare(path, attention, FORMATS.load(name)())
    prompts, expected = [], []
    for prompt in oracle.prompts(0, 30, model.vocab_size):
        ids, logits = generate(model, backend, prompt, NEW)
        best = logits[len(prompt) - 1 :].topk(2).values
        if attention == NATIVE or (best[:, 0] - best[:, 1]).min() > GAP:
            prompts.append(prompt)
            expected.append(ids)
    assert len(prompts) >= 10
    assert max(map(len, prompts)) > 14
    for mix in COVER:
        out, preemptions = run(model, backend, mix, prompts)
        assert out == expected, mix
        assert not mix.preempt or preemptions, f"{mix} preempted nobody"
