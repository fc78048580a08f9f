"""Who holds which part of a tensor, and how parts come together (Megatron-LM, Shoeybi et al. 2019).

A layer that is split by outputs needs no talk; one that is split by inputs sums over the ranks.
Every rank adds in the order of ranks, so that all hold the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from penstock.errors import UnsupportedError
from penstock.parallel.stages import WHOLE, Stage

FLAG = "--tensor-parallel-size"


@dataclass(frozen=True, slots=True)
class Shard:
    """Elements first .. first + count - 1 of `whole` along one dimension."""

    first: int
    count: int
    whole: int

    @property
    def partial(self) -> bool:
        return self.count < self.whole

    def times(self, factor: int) -> Shard:
        """The same part where each element stands for `factor` of them."""
        return Shard(self.first * factor, self.count * factor, self.whole * factor)


def entire(size: int | Shard) -> Shard:
    """All of `size` elements; a shard is returned as it is."""
    return size if isinstance(size, Shard) else Shard(0, size, size)


class Transport(Protocol):
    """Moves tensors between the ranks of one group; all ranks call the same operations in the
    same order. Raises EngineError when the group came apart."""

    def all_reduce(self, x: Tensor) -> None:
        """Sum over ranks, in the order of ranks, in place; contiguous. 16-bit types are summed in
        float32 and rounded once."""
        ...

    def gather(self, x: Tensor, parts: list[Tensor]) -> None:
        """Contiguous x of every rank r to rank 0's parts[r]; elsewhere `parts` is not touched but
        tells the sizes."""
        ...

    def all_gather(self, x: Tensor, parts: list[Tensor]) -> None:
        """Contiguous x of every rank r to every rank's parts[r]."""
        ...

    def broadcast(self, x: Tensor) -> None:
        """Rank 0's x to all, in place; contiguous."""
        ...


class RankGroup:
    """The ranks that share each layer of a model, or of one stage of it; this process is `rank` of
    `size`. Without a transport a group of several can split but not talk.

    part, parts: of those that hold the same weights, and compute parts of the same long rows.
    peers: to the same rank of the other parts. source, sink: to the same rank of the stage before
    and after, each a Transport of two.
    """

    def __init__(
        self, rank: int = 0, size: int = 1, stage: Stage = WHOLE, part: int = 0, parts: int = 1
    ) -> None:
        self.rank = rank
        self.size = size
        self.stage = stage
        self.part = part
        self.parts = parts
        self.transport: Transport | None = None
        self.peers: Transport | None = None
        self.source: Transport | None = None
        self.sink: Transport | None = None

    @property
    def number(self) -> int:
        """Of the process: the last stage's ranks come first, for its rank 0 leads; those of a part
        stand together."""
        place = (self.stage.count - 1 - self.stage.index) * self.parts + self.part
        return place * self.size + self.rank

    @property
    def leads(self) -> bool:
        """Whether this rank samples, and answers for all."""
        return self.number == 0

    def split(self, whole: int, what: str, unit: int = 1, rank: int | None = None) -> Shard:
        """The part of one rank (this one) of `whole` elements, cut at multiples of `unit` only;
        the first ranks take what is left over. Raises UnsupportedError when a rank gets nothing.
        """
        units = -(-whole // unit)
        if units < self.size:
            raise UnsupportedError(
                f"{FLAG} is {self.size}, but {what} ({whole}) can be cut into {units} parts only.",
                cure=f"Use {units} or less.",
                param="tensor_parallel_size",
            )
        at = self.rank if rank is None else rank
        each, over = divmod(units, self.size)
        first = (at * each + min(at, over)) * unit
        count = (each + (at < over)) * unit
        return Shard(first, min(count, whole - first), whole)

    def split_heads(self, heads: int, kv_heads: int) -> tuple[Shard, Shard]:
        """This rank's query heads and the KV heads that they read. With fewer KV heads than ranks
        several ranks hold the same one. Raises UnsupportedError."""
        size = self.size
        if heads % size or (kv_heads % size and size % kv_heads):
            fitting = [
                n
                for n in range(1, heads + 1)
                if heads % n == 0 and (kv_heads % n == 0 or n % kv_heads == 0)
            ]
            raise UnsupportedError(
                f"{FLAG} is {size}, but the model's {heads} attention heads over {kv_heads} KV "
                "heads cannot be shared evenly among as many ranks.",
                cure=f"Use one of {', '.join(map(str, fitting))}.",
                param="tensor_parallel_size",
            )
        each = heads // size
        if kv_heads >= size:
            count = kv_heads // size
            kv = Shard(self.rank * count, count, kv_heads)
        else:
            kv = Shard(self.rank * kv_heads // size, 1, kv_heads)
        return Shard(self.rank * each, each, heads), kv

    def all_reduce(self, x: Tensor) -> None:
        """Sum of every rank's x, in place, the same bits on every rank."""
        if self.transport is not None:
            self.transport.all_reduce(x)

    def gather_columns(self, x: Tensor, whole: int) -> Tensor:
        """x [rows, this rank's part of `whole`] -> on rank 0 [rows, whole], elsewhere x."""
        if self.transport is None:
            return x
        widths = [self.split(whole, "columns", rank=rank).count for rank in range(self.size)]
        parts = [torch.empty((len(x), width), dtype=x.dtype, device=x.device) for width in widths]
        self.transport.gather(x.contiguous(), parts)
        return torch.cat(parts, dim=1) if self.rank == 0 else x

    def gather_rows(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """x [counts[part], …] of each part -> [sum of counts, …] in the order of parts."""
        assert self.peers is not None, "there is one part only"
        whole = torch.empty((sum(counts), *x.shape[1:]), dtype=x.dtype, device=x.device)
        self.peers.all_gather(x.contiguous(), list(torch.split(whole, list(counts))))
        return whole

    def broadcast(self, x: Tensor) -> None:
        """The leader's x to all ranks of its stage, in place."""
        if self.transport is not None and self.part == 0:
            self.transport.broadcast(x)
        if self.peers is not None:
            self.peers.broadcast(x)

    def receive(self, x: Tensor) -> None:
        """Fill x with what the stage before passes on."""
        assert self.source is not None, "the first stage has nothing to receive"
        self.source.broadcast(x)

    def send(self, x: Tensor) -> None:
        """Pass contiguous x on to the next stage."""
        assert self.sink is not None, "the last stage has nobody to send to"
        self.sink.broadcast(x)


ALONE = RankGroup()
