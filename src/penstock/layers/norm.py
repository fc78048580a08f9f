"""Root-mean-square normalisation (Zhang and Sennrich 2019)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import rms_norm

from penstock.layers.targets import Target, Targets


class RMSNorm:
    """x / rms(x) * weight over the last dimension; the mean is taken in float32.

    offset: what the checkpoint's weight lacks (Gemma: 1). Such a weight is kept in float32, because
    the sum needs more digits than its parts have in 16 bits.
    """

    def __init__(
        self,
        size: int,
        eps: float,
        dtype: torch.dtype,
        device: torch.device,
        offset: float = 0.0,
    ) -> None:
        kept = torch.float32 if offset else dtype
        self.weight = torch.empty(size, dtype=kept, device=device)
        self._shape = [size]
        self._eps = eps
        self._offset = offset

    def __call__(self, x: Tensor) -> Tensor:
        """x [..., size] -> the same shape and dtype."""
        return rms_norm(x.to(self.weight.dtype), self._shape, self.weight, self._eps).to(x.dtype)

    def targets(self, prefix: str) -> Targets:
        place = Raised(self.weight, self._offset) if self._offset else self.weight
        return {f"{prefix}.weight": Target(place)}


class Raised:
    """A Place: a weight, or several rows of it, to which `offset` is added when it is loaded."""

    def __init__(self, weight: Tensor, offset: float) -> None:
        self._weight = weight
        self._offset = offset

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._weight.shape)

    @property
    def nbytes(self) -> int:
        return self._weight.nbytes

    def copy_(self, tensor: Tensor, /) -> None:
        """Take over [..., size], repeated over rows that the tensor lacks."""
        self._weight.copy_(tensor).add_(self._offset)
