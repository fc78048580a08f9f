"""Mixed batches over a cache whose blocks are scattered, for tests of attention backends."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from penstock.attention.base import AttentionBackend, AttnBatch, GroupTables

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Case:
    """rows: (queries, keys) of each row."""

    rows: tuple[tuple[int, int], ...]
    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int = 16
    block_size: int = 16
    window: int = 0
    softcap: float = 0.0
    dtype: torch.dtype = torch.float32
    kv_dtype: torch.dtype | None = None
    """of the cache; None: dtype"""
    seed: int = 0
    device: torch.device = CPU

    def __str__(self) -> str:
        parts = [f"{q}of{k}" for q, k in self.rows[:4]]
        parts.append(f"h{self.num_heads}:{self.num_kv_heads}x{self.head_dim}")
        parts.append(f"b{self.block_size}-w{self.window}-c{self.softcap}-{self.dtype}")
        return "-".join(parts)


@dataclass
class Paged:
    """A case as tensors: the query, each row's K and V [keys, heads, dim], batch and tables."""

    case: Case
    q: Tensor
    kv: list[tuple[Tensor, Tensor]]
    batch: AttnBatch
    num_blocks: int

    def attend(self, backend: AttentionBackend, stale: float = 0.0) -> Tensor:
        """Write all rows through the backend and attend; `stale` is what blocks held before."""
        case, tables = self.case, self.batch.groups[0]
        shape = (self.num_blocks, case.block_size, case.num_kv_heads, case.head_dim)
        cache = backend.allocate(*shape, case.kv_dtype or case.dtype, case.device)
        if cache.is_floating_point():
            cache.fill_(stale)
        elif stale:  # a scale of such bytes is no number
            cache.view(torch.uint8).fill_(255)
        for row, (k, v) in enumerate(self.kv):
            at = torch.arange(k.shape[0], device=case.device)
            ids = tables.block_tables[row, at // case.block_size].long()
            slots = ids * case.block_size + at % case.block_size
            backend.write(cache, k, v, replace(tables, slot_mapping=slots))
        scale = case.head_dim**-0.5
        return backend.attend(self.q, cache, self.batch, tables, scale, case.window, case.softcap)


def build(case: Case) -> Paged:
    """Random queries, keys and values; entries that the contract leaves undefined get block 0,
    which belongs to nobody."""
    generator = torch.Generator().manual_seed(case.seed)
    draw = random.Random(case.seed)
    widths = [-(-keys // case.block_size) for _, keys in case.rows]
    ids = draw.sample(range(1, sum(widths) + 4), sum(widths))
    tables = torch.zeros(len(case.rows), max(widths) + 1, dtype=torch.int32)
    kv = []
    for row, ((_, keys), width) in enumerate(zip(case.rows, widths, strict=True)):
        tables[row, :width] = torch.tensor([ids.pop() for _ in range(width)])
        shape = (2, keys, case.num_kv_heads, case.head_dim)
        k, v = torch.randn(shape, generator=generator).to(case.device, case.dtype)
        kv.append((k, v))
    queries = [q for q, _ in case.rows]
    q = torch.randn(sum(queries), case.num_heads, case.head_dim, generator=generator)
    starts = torch.tensor([0, *queries]).cumsum(0).to(case.device, torch.int32)
    lens = [keys for _, keys in case.rows]
    group = GroupTables(tables.to(case.device), torch.empty(0, dtype=torch.int64))
    batch = AttnBatch(
        starts, torch.tensor(lens, dtype=torch.int32, device=case.device), (group,), queries, lens
    )
    return Paged(case, q.to(case.device, case.dtype), kv, batch, sum(widths) + 4)
