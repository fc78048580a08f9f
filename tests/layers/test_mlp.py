from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from penstock.layers.mlp import ACTIVATIONS, GatedMLP
from tests import oracle

CPU = torch.device("cpu")


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("act", ["silu", "gelu_pytorch_tanh"])
def test_gates(act: str, bias: bool) -> None:
    layer = GatedMLP(6, 10, act, bias, torch.float32, CPU)
    w = {name: torch.randn(target.shape) for name, target in layer.targets("m").items()}
    for name, target in layer.targets("m").items():
        target.load(w[name])
    x = torch.randn(3, 6)
    gate, up = (
        F.linear(x, w[f"m.{p}_proj.weight"], w.get(f"m.{p}_proj.bias")) for p in ("gate", "up")
    )
    gated = F.silu(gate) if act == "silu" else F.gelu(gate, approximate="tanh")
    expected = F.linear(gated * up, w["m.down_proj.weight"], w.get("m.down_proj.bias"))
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_those_of_transformers(name: str) -> None:
    x = torch.linspace(-4, 4, 9)
    torch.testing.assert_close(ACTIVATIONS[name](x), oracle.activation(name)(x))
