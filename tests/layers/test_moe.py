"""A sparse layer against one token and one expert at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear, silu

from penstock.layers.moe import Experts, MoE, route

CPU = torch.device("cpu")


def one_token(w: dict[str, Tensor], x: Tensor, shape: Experts) -> Tensor:
    shares = linear(x, w["l.mlp.gate.weight"]).softmax(0)
    best = shares.topk(shape.top_k)
    weights = best.values / best.values.sum() if shape.normalised else best.values
    out = torch.zeros_like(x)
    for share, e in zip(weights, best.indices.tolist(), strict=True):
        gate, up, down = (w[f"l.mlp.experts.{e}.{n}_proj.weight"] for n in ("gate", "up", "down"))
        out += share * linear(silu(linear(x, gate)) * linear(x, up), down)
    return out


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("top_k", [1, 3, 5])
def test_equals_token_by_token(normalised: bool, top_k: int) -> None:
    shape = Experts(5, 12, top_k, normalised)
    layer = MoE(8, shape, "silu", torch.float32, CPU)
    targets = layer.targets("l")
    assert len(targets) == 1 + 3 * 5
    weights = {name: torch.randn(target.shape) for name, target in targets.items()}
    for name, target in targets.items():
        target.load(weights[name])
    x = torch.randn(7, 8)
    expected = torch.stack([one_token(weights, row, shape) for row in x])
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)


def test_equal_experts_are_chosen_by_number() -> None:
    weights, chosen = route(torch.zeros(2, 6), 3, True)
    assert chosen.tolist() == [[0, 1, 2]] * 2
    torch.testing.assert_close(weights, torch.full((2, 3), 1 / 3))
