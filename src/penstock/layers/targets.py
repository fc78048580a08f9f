"""How weights find their place: each layer says which checkpoint tensor goes into which memory.

A fused parameter gives one target a part, so that the loader knows neither layers nor models; a
checkpoint that is fused itself has targets with several places. A rank that holds a part of a
tensor says which, so that the loader reads no more.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from penstock.parallel.ranks import Shard
from penstock.quant.base import Place


@dataclass(frozen=True, slots=True)
class Target:
    """The place of one checkpoint tensor, or of a part of it."""

    into: Place
    """a parameter, a view of a part of one, or a part of a matrix in another format"""
    repeated: bool = False
    """the tensor fills each row of `into`"""
    parts: tuple[Shard, ...] = ()
    """by dimension: what of the checkpoint's tensor goes there; empty = all of it"""
    others: tuple[Target, ...] = ()
    """further parts of the same tensor"""

    @property
    def shape(self) -> tuple[int, ...]:
        """What the checkpoint's tensor must have."""
        if self.partial:
            return tuple(part.whole for part in self.parts)
        return tuple(self.into.shape[1:] if self.repeated else self.into.shape)

    @property
    def nbytes(self) -> int:
        """What is stored for it, all places together."""
        return self.into.nbytes + sum(other.nbytes for other in self.others)

    @property
    def partial(self) -> bool:
        """Whether `load` wants less than the whole tensor."""
        return any(part.partial for part in self.parts)

    @property
    def index(self) -> tuple[slice, ...]:
        """What to read of the checkpoint's tensor."""
        return tuple(slice(part.first, part.first + part.count) for part in self.parts)

    def load(self, tensor: Tensor) -> None:
        """Copy the part at `index` of a tensor of `shape`, of any dtype."""
        self.into.copy_(tensor)


Targets = dict[str, Target]
"""by checkpoint name"""


def fused(targets: list[Target]) -> Target:
    """One checkpoint tensor whose rows are those of several targets, one after another."""
    whole = sum(target.parts[0].whole for target in targets)
    found: list[Target] = []
    begin = 0
    for target in targets:
        rows, *rest = target.parts
        shard = Shard(begin + rows.first, rows.count, whole)
        found.append(Target(target.into, parts=(shard, *rest)))
        begin += rows.whole
    return Target(found[0].into, parts=found[0].parts, others=tuple(found[1:]))
