from __future__ import annotations

import torch

from penstock.attention.base import AdapterRows
from penstock.layers.linear import Linear
from penstock.layers.lora import LowRank
from penstock.parallel.ranks import Shard

CPU = torch.device("cpu")


def pair(outputs: int, inputs: int, rank: int) -> LowRank:
    return torch.randn(rank, inputs), torch.randn(outputs, rank)


def test_each_token_gets_what_its_adapter_adds() -> None:
    layer = Linear(6, {"a": 4, "b": 2}, False, torch.float32, CPU)
    for target in layer.targets("l").values():
        target.load(torch.randn(target.shape))
    layer.adapt(slots=3, rank=3)
    assert layer.additions is not None
    first, second, only_b = pair(4, 6, 2), pair(2, 6, 3), pair(2, 6, 1)
    layer.additions.store(0, {"a": first, "b": second})
    layer.additions.store(2, {"b": only_b})
    x = torch.randn(5, 6)
    rows = AdapterRows(torch.tensor([1, 4, 2]), [0, 2, 2, 3])
    expected = layer(x)
    for token in (1, 4):
        expected[token] += torch.cat([b @ (a @ x[token]) for a, b in (first, second)])
    expected[2, 4:] += only_b[1] @ (only_b[0] @ x[2])
    torch.testing.assert_close(layer(x, rows), expected)
    layer.additions.store(2, {})
    assert torch.equal(layer(x, rows)[2], layer(x)[2])


def test_a_rank_adds_to_its_own_outputs_and_from_its_own_inputs() -> None:
    parts = {"a": Shard(2, 2, 4), "b": Shard(1, 1, 2)}
    layer = Linear(6, parts, False, torch.float32, CPU)
    layer.adapt(1, 2, "ab")
    assert layer.additions is not None
    a, b = joined = pair(6, 6, 2)
    found_a, found_b = layer.additions.matrices({"ab": joined})
    torch.testing.assert_close(found_b @ found_a, (b @ a)[[2, 3, 5]])
    layer = Linear(Shard(3, 3, 6), {"a": 4}, False, torch.float32, CPU)
    layer.adapt(1, 2)
    assert layer.additions is not None
    a, b = alone = pair(4, 6, 2)
    found_a, found_b = layer.additions.matrices({"a": alone})
    torch.testing.assert_close(found_b @ found_a, b @ a[:, 3:])
