"""Threads as the ranks of a group: the transports know files and memory, not processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from penstock.parallel.meeting import Meeting
from penstock.parallel.ranks import RankGroup

CPU = torch.device("cpu")
T = TypeVar("T")


def talk(size: int, way: str, act: Callable[[RankGroup], T]) -> list[T]:
    """What `act` returns on each rank."""
    meeting = Meeting.call(size)

    def rank(number: int) -> T:
        ranks = RankGroup(number, size)
        ranks.transport = meeting.connect(number, CPU, way, lambda: False)
        return act(ranks)

    with ThreadPoolExecutor(size) as pool:
        found = list(pool.map(rank, range(size)))
    for fd in meeting.fds:
        os.close(fd)
    return found


def noise(rank: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Rank `rank`'s own numbers, of very different magnitudes."""
    generator = torch.Generator().manual_seed(rank)
    return (torch.randn(shape, generator=generator) * 10.0 ** (rank % 3)).to(dtype)


def check_collectives(size: int, way: str, dtype: torch.dtype, length: int) -> None:
    """Sums in the order of ranks, bit for bit on all; columns, rows and broadcasts."""
    inputs = [noise(rank, length, dtype=dtype) for rank in range(size)]
    total = inputs[0].float()
    for one in inputs[1:]:
        total = total + one.float()
    width = 2 * size + 1

    def act(ranks: RankGroup) -> tuple[Tensor, Tensor, Tensor]:
        for _ in range(3):
            x = inputs[ranks.rank].clone()
            ranks.all_reduce(x)
        own = ranks.split(width, "columns")
        table = torch.arange(3 * width, dtype=torch.float32).view(3, width)
        columns = table[:, own.first : own.first + own.count]
        joined = ranks.gather_columns(columns, width)
        ids = torch.full((length,), ranks.rank, dtype=torch.int64)
        ranks.broadcast(ids)
        ranks.peers = ranks.transport
        counts = [3 * other + 1 for other in range(size)]
        rows = ranks.gather_rows(inputs[ranks.rank][: counts[ranks.rank], None], counts)
        assert torch.equal(
            rows[:, 0], torch.cat([x[:n] for x, n in zip(inputs, counts, strict=True)])
        )
        return x, joined, ids

    found = talk(size, way, act)
    assert found[0][1].tolist() == torch.arange(3.0 * width).view(3, width).tolist()
    for x, _, ids in found:
        assert torch.equal(x, total.to(dtype))
        assert not ids.any()
