"""Dense layers, several of which may share one matrix product."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from penstock.layers.targets import Target, Targets


class Linear:
    """y = x W^T + b, for one or more named parts that read the same input.

    The parts' rows lie one after another in `weight` [sum of part sizes, in_size].
    """

    def __init__(
        self,
        in_size: int,
        parts: dict[str, int],
        bias: bool,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        out_size = sum(parts.values())
        self.parts = parts
        self.weight = torch.empty(out_size, in_size, dtype=dtype, device=device)
        self.bias = torch.empty(out_size, dtype=dtype, device=device) if bias else None

    def __call__(self, x: Tensor) -> Tensor:
        """x [tokens, in_size] -> [tokens, sum of part sizes]."""
        return linear(x, self.weight, self.bias)

    def targets(self, prefix: str) -> Targets:
        """`{prefix}.{part}.weight` and, with a bias, `.bias` for every part."""
        found: Targets = {}
        start = 0
        for part, size in self.parts.items():
            found[f"{prefix}.{part}.weight"] = Target(self.weight[start : start + size])
            if self.bias is not None:
                found[f"{prefix}.{part}.bias"] = Target(self.bias[start : start + size])
            start += size
        return found
