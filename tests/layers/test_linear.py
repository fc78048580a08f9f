from __future__ import annotations

import torch

from penstock.layers.linear import Linear

CPU = torch.device("cpu")


def test_parts_are_the_products_of_their_own_matrices() -> None:
    layer = Linear(3, {"a": 2, "b": 4}, True, torch.float32, CPU)
    weights = {name: torch.randn(target.shape) for name, target in layer.targets("x").items()}
    assert set(weights) == {"x.a.weight", "x.a.bias", "x.b.weight", "x.b.bias"}
    for name, target in layer.targets("x").items():
        target.load(weights[name])
    x = torch.randn(5, 3)
    apart = [x @ weights[f"x.{p}.weight"].T + weights[f"x.{p}.bias"] for p in ("a", "b")]
    torch.testing.assert_close(layer(x), torch.cat(apart, dim=1))


def test_without_bias_none_is_asked_for() -> None:
    layer = Linear(3, {"a": 2}, False, torch.float32, CPU)
    assert set(layer.targets("x")) == {"x.a.weight"}
