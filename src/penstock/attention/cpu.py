"""Paged attention by the CPU kernels: batch invariant bit for bit, see kernels/cpu/attention.h.

A model that runs as a recorded program has these ops inside it; this backend serves models that
run in torch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from penstock.attention.base import AttnBatch, GroupTables
from penstock.errors import UnsupportedError
from penstock.kernels import cpu
from penstock.kernels.cpu import ops, program
from penstock.kernels.cpu.memory import ARENA

KEY_BLOCK = 16
MAX_HEAD_DIM = 256


class CpuAttention:
    """Caches are float32, bfloat16 or int8 (stored as uint8: a scale follows each token)."""

    name = "cpu"
    block_sizes: tuple[int, ...] = (16, 32, 64, 128, 256)

    def __init__(self, threads: int | None = None, isa: str | None = None) -> None:
        """Raises UnsupportedError where the kernels do not run."""
        reason = cpu.available()
        if reason is not None:
            raise UnsupportedError(
                f"The attention backend cpu cannot run: {reason}.",
                cure="Choose --attention-backend torch.",
            )
        self._pool = program.pool(threads)
        self._isa = isa

    def allocate(
        self,
        num_blocks: int,
        block_size: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Tensor:
        """Zeros whose shape carries the sizes; what lies where inside a block and head is the
        kernels' own. Raises UnsupportedError for a head_dim that they cannot take."""
        if head_dim % KEY_BLOCK or head_dim > MAX_HEAD_DIM:
            raise UnsupportedError(
                f"The attention backend cpu needs heads of a multiple of {KEY_BLOCK} and at most "
                f"{MAX_HEAD_DIM} elements, not {head_dim}.",
                cure="Choose --attention-backend torch.",
            )
        if dtype == torch.int8:
            dtype, head_dim = torch.uint8, head_dim + 4
        shape = (num_blocks, num_kv_heads, 2, block_size, head_dim)
        return ARENA.zeros(shape, dtype)

    def write(self, cache: Tensor, k: Tensor, v: Tensor, tables: GroupTables) -> None:
        """See AttentionBackend.write."""
        tokens = k.shape[0]
        if not tokens:
            return
        kv = torch.cat((k, v), dim=1).float().flatten(1)
        op = program.Program(self._pool, tokens, isa=self._isa)
        op.rope(kv, None, view(cache), ops.Rope())
        op.run(_batch(tokens, torch.empty(0), torch.empty(0), tables))

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
        """See AttentionBackend.attend."""
        queries = q.float().flatten(1).contiguous()
        out = torch.empty_like(queries)
        op = program.Program(self._pool, q.shape[0], isa=self._isa)
        max_len = max(batch.seq_lens_host, default=0)
        op.attention(queries, out, view(cache), scale, max_len, window, softcap)
        op.run(_batch(q.shape[0], batch.query_start, batch.seq_lens, tables))
        return out.view(q.shape).to(q.dtype)


def view(cache: Tensor) -> ops.KVCache:
    """What the kernels know of a cache from `allocate`."""
    _, num_kv_heads, _, block_size, head_dim = cache.shape
    if cache.dtype == torch.uint8:
        return ops.KVCache(cache, torch.int8, block_size, num_kv_heads, head_dim - 4)
    return ops.KVCache(cache, cache.dtype, block_size, num_kv_heads, head_dim)


def _batch(tokens: int, query_start: Tensor, seq_lens: Tensor, tables: GroupTables) -> ops.Batch:
    nothing = torch.empty(0, dtype=torch.int64)
    slots, block_tables = tables.slot_mapping.contiguous(), tables.block_tables
    group = ops.GroupTables(block_tables, slots)
    ids = torch.empty(tokens, dtype=torch.int64)
    return ops.Batch(ids, nothing, query_start, seq_lens, nothing, (group,))
