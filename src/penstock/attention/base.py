"""The seam of attention backends: what a batch looks like and what a backend must offer.

One backend = one file. The batch is an argument, never a global, and the model does not know
which backend it runs on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor


@dataclass(slots=True)
class GroupTables:
    """Where one KV group keeps the keys and values of this step's rows."""

    block_tables: Tensor
    """int32 [rows, max_blocks]: block ids; entries past a row's length are undefined, and so are
    those that a window has passed"""
    slot_mapping: Tensor
    """int64 [tokens]: block_id * block_size + offset where this step's K and V are written"""
    prepared: Any = None
    """what the backend worked out at the first layer of this step for the layers after it"""


@dataclass(slots=True)
class AdapterRows:
    """The tokens of a step whose requests have an adapter."""

    tokens: Tensor
    """int64: by slot"""
    starts: list[int]
    """[slots + 1]: where those of each slot begin"""

    def each(self) -> Iterator[tuple[int, Tensor]]:
        """(slot, its tokens), of slots that have some."""
        for slot, (first, last) in enumerate(pairwise(self.starts)):
            if last > first:
                yield slot, self.tokens[first:last]


@dataclass(slots=True)
class AttnBatch:
    """A packed (unpadded) batch: row r owns tokens query_start[r] .. query_start[r + 1] - 1.

    The last query of a row is the last of its keys, so query i of a row with q queries and s keys
    stands at position s - q + i and sees keys 0 .. s - q + i (less what the window hides).
    """

    query_start: Tensor
    """int32 [rows + 1]"""
    seq_lens: Tensor
    """int32 [rows]: keys of each row, those of this step included"""
    groups: tuple[GroupTables, ...]
    query_lens_host: list[int]
    seq_lens_host: list[int]
    """the same numbers on the host, so that nobody has to wait for the device"""
    adapters: AdapterRows | None = None
    """None: nobody has one"""

    @property
    def num_rows(self) -> int:
        return len(self.query_lens_host)


def zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A cleared tensor. On a CPU its pages are taken when they are first written, so that a large
    cache costs a start no time (torch.zeros writes every page)."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    size = math.prod(shape) * dtype.itemsize
    return torch.from_numpy(np.zeros(size, np.uint8)).view(dtype).view(shape)


class AttentionBackend(Protocol):
    """Paged attention over a KV cache whose layout the backend chooses."""

    name: str
    block_sizes: tuple[int, ...]
    """allowed block sizes, the default first"""

    def allocate(
        self,
        num_blocks: int,
        block_size: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Tensor:
        """The cache of one layer: keys and values of all blocks, zeroed, one tensor of
        2 * num_blocks * block_size * num_kv_heads * head_dim elements. Dimension 0 is the block."""
        ...

    def write(self, cache: Tensor, k: Tensor, v: Tensor, tables: GroupTables) -> None:
        """Store k and v [tokens, num_kv_heads, head_dim] at tables.slot_mapping."""
        ...

    def attend(
        self,
        q: Tensor,
        cache: Tensor,
        batch: AttnBatch,
        tables: GroupTables,
        scale: float,
        window: int = 0,
        softcap: float = 0.0,
    ) -> Tensor:
        """Attention of q [tokens, num_heads, head_dim] over the cached keys and values.

        window w > 0: a query at position p sees keys p - w + 1 .. p. softcap c > 0: scores are
        c * tanh(score / c). Returns [tokens, num_heads, head_dim] in q's dtype.
        """
        ...
