from __future__ import annotations

import torch

from penstock.layers.linear import Linear
from penstock.parallel.ranks import Shard

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


def test_one_tensor_may_hold_the_rows_of_all_parts() -> None:
    """Also where a rank holds a piece of each."""
    joined, shards = torch.randn(10, 3), {"a": Shard(2, 2, 4), "b": Shard(3, 3, 6)}
    target = Linear(3, shards, False, torch.float32, CPU).targets("x", "ab")["x.ab.weight"]
    assert target.shape == (10, 3)
    assert target.nbytes == 5 * 3 * 4
    for part in (target, *target.others):
        part.load(joined[part.index])
    assert torch.equal(target.into, joined[2:4])
    assert torch.equal(target.others[0].into, joined[7:10])
