"""The gated feed-forward layer (Shazeer 2020)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import gelu, relu, silu

from penstock.layers.linear import Linear
from penstock.layers.targets import Targets
from penstock.quant.base import LinearFormat
from penstock.quant.plain import PLAIN


def _gelu_tanh(x: Tensor) -> Tensor:
    return gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": silu,
    "swish": silu,
    "gelu": gelu,
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "relu": relu,
}
"""`hidden_act` of config.json -> the function"""


class GatedMLP:
    """down(act(gate(x)) * up(x)); gate and up are one product."""

    def __init__(
        self,
        hidden_size: int,
        size: int,
        act: str,
        bias: bool,
        dtype: torch.dtype,
        device: torch.device,
        format: LinearFormat = PLAIN,
    ) -> None:
        parts = {"gate_proj": size, "up_proj": size}
        self.gate_up = Linear(hidden_size, parts, bias, dtype, device, format)
        out = {"down_proj": hidden_size}
        # A product of two: where both are large it stands far above its neighbours.
        self.down = Linear(size, out, bias, dtype, device, format, outliers=True)
        self._act = ACTIVATIONS[act]

    def __call__(self, x: Tensor) -> Tensor:
        """x [tokens, hidden_size] -> the same shape."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(self._act(gate).mul_(up))

    def targets(self, prefix: str) -> Targets:
        return self.gate_up.targets(prefix) | self.down.targets(prefix)
