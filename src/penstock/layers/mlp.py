"""The gated feed-forward layer (Shazeer 2020)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import gelu, relu, silu

from penstock.attention.base import AdapterRows
from penstock.layers.linear import Linear
from penstock.layers.targets import Targets
from penstock.parallel.ranks import ALONE, RankGroup
from penstock.quant.base import LinearFormat
from penstock.quant.plain import PLAIN

NAMES = ("gate_proj", "up_proj", "down_proj")
"""of the three matrices in most checkpoints"""


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
        ranks: RankGroup = ALONE,
        names: tuple[str, str, str] = NAMES,
    ) -> None:
        inner = ranks.split(size, "the feed-forward layer", format.group_size)
        gate, up, down = names
        parts = {gate: inner, up: inner}
        self.gate_up = Linear(hidden_size, parts, bias, dtype, device, format, ranks)
        # A product of two: where both are large it stands far above its neighbours.
        out = {down: hidden_size}
        self.down = Linear(inner, out, bias, dtype, device, format, ranks, outliers=True)
        self._act = ACTIVATIONS[act]

    def __call__(self, x: Tensor, adapters: AdapterRows | None = None) -> Tensor:
        """x [tokens, hidden_size] -> the same shape."""
        return self.down(self.inner(x, adapters), adapters)

    def inner(self, x: Tensor, adapters: AdapterRows | None = None) -> Tensor:
        """What enters the last product: x [tokens, hidden_size] -> [tokens, this rank's part]."""
        gate, up = self.gate_up(x, adapters).chunk(2, dim=-1)
        return self._act(gate).mul_(up)

    def targets(self, prefix: str, joined: str | None = None) -> Targets:
        """joined: the name of gate and up where the checkpoint has them as one tensor."""
        return self.gate_up.targets(prefix, joined) | self.down.targets(prefix)
