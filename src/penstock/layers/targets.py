"""How weights find their place: each layer says which checkpoint tensor goes into which memory.

A fused parameter gives one target a part, so that the loader knows neither layers nor models.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from penstock.quant.base import Place


@dataclass(frozen=True, slots=True)
class Target:
    """The place of one checkpoint tensor."""

    into: Place
    """a parameter, a view of a part of one, or a part of a matrix in another format"""
    repeated: bool = False
    """the tensor fills each row of `into`"""

    @property
    def shape(self) -> tuple[int, ...]:
        """What the checkpoint's tensor must have."""
        return tuple(self.into.shape[1:] if self.repeated else self.into.shape)

    def load(self, tensor: Tensor) -> None:
        """Copy a tensor of `shape`, of any dtype."""
        self.into.copy_(tensor)


Targets = dict[str, Target]
"""by checkpoint name"""
