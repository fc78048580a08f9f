"""Dense layers, several of which may share one matrix product."""

from __future__ import annotations

import torch
from torch import Tensor

from penstock.layers.targets import Target, Targets
from penstock.quant.base import LinearFormat
from penstock.quant.plain import PLAIN


class Linear:
    """y = x W^T + b, for one or more named parts that read the same input.

    The parts' rows lie one after another in `matrix` [sum of part sizes, in_size], whose storage
    and product are the format's. `outliers` tells the format what enters: see LinearFormat.
    """

    def __init__(
        self,
        in_size: int,
        parts: dict[str, int],
        bias: bool,
        dtype: torch.dtype,
        device: torch.device,
        format: LinearFormat = PLAIN,
        outliers: bool = False,
    ) -> None:
        out_size = sum(parts.values())
        self.parts = parts
        self.matrix = format.matrix(out_size, in_size, dtype, device, outliers)
        self.bias = torch.empty(out_size, dtype=dtype, device=device) if bias else None

    def __call__(self, x: Tensor) -> Tensor:
        """x [tokens, in_size] -> [tokens, sum of part sizes]."""
        return self.matrix(x, self.bias)

    def targets(self, prefix: str) -> Targets:
        """`{prefix}.{part}.weight` and, with a bias, `.bias` for every part."""
        found: Targets = {}
        start = 0
        for part, size in self.parts.items():
            found[f"{prefix}.{part}.weight"] = Target(self.matrix.place(start, size))
            if self.bias is not None:
                found[f"{prefix}.{part}.bias"] = Target(self.bias[start : start + size])
            start += size
        return found
