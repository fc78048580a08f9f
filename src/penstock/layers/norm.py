"""Root-mean-square normalisation (Zhang and Sennrich 2019)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import rms_norm

from penstock.layers.targets import Target, Targets


class RMSNorm:
    """x / rms(x) * weight over the last dimension; the mean is taken in float32."""

    def __init__(self, size: int, eps: float, dtype: torch.dtype, device: torch.device) -> None:
        self.weight = torch.empty(size, dtype=dtype, device=device)
        self._shape = [size]
        self._eps = eps

    def __call__(self, x: Tensor) -> Tensor:
        """x [..., size] -> the same shape and dtype."""
        return rms_norm(x, self._shape, self.weight, self._eps)

    def targets(self, prefix: str) -> Targets:
        return {f"{prefix}.weight": Target(self.weight)}
