from __future__ import annotations

import torch

from penstock.layers.targets import Target


def test_loads_into_a_view_and_casts() -> None:
    fused = torch.zeros(4, 2)
    target = Target(fused[1:3])
    assert target.shape == (2, 2)
    target.load(torch.ones(2, 2, dtype=torch.bfloat16))
    assert fused.tolist() == [[0, 0], [1, 1], [1, 1], [0, 0]]


def test_repeated_fills_every_row() -> None:
    rows = torch.zeros(3, 2)
    target = Target(rows, repeated=True)
    assert target.shape == (2,)
    target.load(torch.tensor([1.0, 2.0]))
    assert rows.tolist() == [[1, 2]] * 3
