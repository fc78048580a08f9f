from __future__ import annotations

import torch

from penstock.layers.embedding import Embedding


def test_rows_by_id_and_logits_by_product() -> None:
    layer = Embedding(7, 4, torch.bfloat16, torch.device("cpu"))
    table = torch.randn(7, 4).bfloat16()
    layer.targets("embed")["embed.weight"].load(table)
    assert torch.equal(layer(torch.tensor([3, 0, 3])), table[[3, 0, 3]])
    hidden = torch.randn(2, 4).bfloat16()
    logits = layer.logits(hidden)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, (hidden @ table.T).float(), rtol=0.02, atol=0.02)


def test_a_scale_is_rounded_as_the_table_is_and_leaves_logits_alone() -> None:
    layer = Embedding(7, 4, torch.bfloat16, torch.device("cpu"), scale=55.4256)
    layer.targets("embed")["embed.weight"].load(torch.ones(7, 4))
    assert layer.scale == 55.5
    assert torch.equal(layer(torch.tensor([1])), torch.full((1, 4), 55.5).bfloat16())
    assert torch.equal(layer.logits(torch.ones(1, 4).bfloat16()), torch.full((1, 7), 4.0))
