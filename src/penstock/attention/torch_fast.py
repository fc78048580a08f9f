"""The fast path from torch's own operators, for CPU and any other device torch runs on.

Rows with one query are batched: their blocks are gathered into one scratch buffer that stays in
the processor's cache, and the query heads of a KV head act as its queries, so that keys are read
once. Longer rows run one by one on exactly their keys. What depends only on the step (gather
indices, masks) is worked out at its first layer and kept in `GroupTables.prepared`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from penstock.attention.base import AttnBatch, GroupTables
from penstock.attention.torch_reference import TorchReference, restored

SCRATCH_BYTES = 8 << 20
"""Rows of one decode call share a scratch of about this size: larger ones fall out of cache."""
WASTE_BYTES = 512 << 10
"""Padding that one decode call may copy: about what a further call would cost."""
MASKED_QUERIES = 512
"""Queries of one masked call: bounds the mask, and lets a window skip keys."""


@dataclass(slots=True)
class DecodeChunk:
    """One-query rows that are computed by one call, padded to the same number of blocks."""

    tokens: Tensor | None
    """int64 [rows]: their queries; None: all tokens of the batch in order"""
    blocks: Tensor
    """int32 [rows * blocks]"""
    rows: int
    mask: Tensor | None
    """[rows, 1, 1, keys] in q's dtype: 0 or -inf"""
    padding: Tensor | None
    """int64: scratch tokens to clear, so that what a block's last owner left there (it may be
    infinite) never meets the weight 0"""


@dataclass(slots=True)
class PrefillPart:
    """Queries of one row: tokens q0 .. q1 - 1 over keys k0 .. k1 - 1 of its gathered blocks."""

    q0: int
    q1: int
    k0: int
    k1: int
    blocks: Tensor
    """int32 [blocks]"""
    mask: Tensor | None
    """[1, 1, queries, keys] in q's dtype; None: causal, queries == keys"""


@dataclass(slots=True)
class Prepared:
    decode: list[DecodeChunk]
    prefill: list[PrefillPart]


class TorchFast(TorchReference):
    """Same cache as the reference; softcap, which torch's operator lacks, falls back to it."""

    name = "torch"

    def __init__(self) -> None:
        self._scratch = torch.empty(0)

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
        if softcap:
            return super().attend(q, cache, batch, tables, scale, window, softcap)
        if tables.prepared is None:
            tables.prepared = _prepare(q, cache, batch, tables.block_tables, window)
        prepared: Prepared = tables.prepared
        if len(prepared.decode) == 1 and prepared.decode[0].tokens is None:
            return self._decode(q, cache, prepared.decode[0], scale)
        out = torch.empty_like(q)
        for chunk in prepared.decode:
            assert chunk.tokens is not None
            out[chunk.tokens] = self._decode(q[chunk.tokens], cache, chunk, scale)
        for part in prepared.prefill:
            out[part.q0 : part.q1] = self._prefill(q[part.q0 : part.q1], cache, part, scale)
        return out

    def _gather(self, cache: Tensor, blocks: Tensor) -> Tensor:
        """The cache's blocks, one after another, in the scratch buffer."""
        shape = (blocks.shape[0], *cache.shape[1:])
        size = blocks.shape[0] * cache[0].numel()
        if (
            self._scratch.numel() < size
            or self._scratch.dtype != cache.dtype
            or self._scratch.device != cache.device
        ):
            self._scratch = cache.new_empty(size)
        scratch = self._scratch[:size].view(shape)
        return torch.index_select(cache, 0, blocks, out=scratch)

    def _decode(self, q: Tensor, cache: Tensor, chunk: DecodeChunk, scale: float) -> Tensor:
        """q [rows, num_heads, head_dim] -> the same shape."""
        gathered = self._gather(cache, chunk.blocks)
        if chunk.padding is not None:
            gathered.flatten(0, 1).index_fill_(0, chunk.padding, 0)
        kv_heads, head_dim = cache.shape[3], q.shape[2]
        kv = restored(gathered, q.dtype).view(chunk.rows, -1, 2, kv_heads, head_dim).transpose(1, 3)
        grouped = q.view(chunk.rows, kv_heads, -1, head_dim)
        out = scaled_dot_product_attention(
            grouped, kv[:, :, 0], kv[:, :, 1], attn_mask=chunk.mask, scale=scale
        )
        return out.reshape(q.shape)

    def _prefill(self, q: Tensor, cache: Tensor, part: PrefillPart, scale: float) -> Tensor:
        """q [queries, num_heads, head_dim] -> the same shape."""
        kv = self._gather(cache, part.blocks).flatten(0, 1)[part.k0 : part.k1]
        kv = restored(kv, q.dtype)
        out = scaled_dot_product_attention(
            q.transpose(0, 1)[None],
            kv[:, 0].transpose(0, 1)[None],
            kv[:, 1].transpose(0, 1)[None],
            attn_mask=part.mask,
            is_causal=part.mask is None,
            scale=scale,
            enable_gqa=q.shape[1] != cache.shape[3],
        )
        return out[0].transpose(0, 1)


def _prepare(
    q: Tensor, cache: Tensor, batch: AttnBatch, block_tables: Tensor, window: int
) -> Prepared:
    prepared = Prepared([], [])
    block_size = cache.shape[1]
    singles: list[_Single] = []
    token = 0
    for row in range(batch.num_rows):
        queries, keys = batch.query_lens_host[row], batch.seq_lens_host[row]
        if queries == 1:
            first = max(0, keys - window) // block_size if window else 0
            singles.append(_Single(row, token, keys, first, -(-keys // block_size) - first))
        else:
            table = block_tables[row]
            prepared.prefill += _prefill_parts(q, token, queries, keys, table, block_size, window)
        token += queries
    block_bytes = cache[0].numel() * cache.element_size()
    for rows in _chunks(singles, block_bytes):
        prepared.decode.append(_decode_chunk(q, rows, block_tables, block_size, window))
    return prepared


@dataclass(slots=True)
class _Single:
    """A row with one query: its blocks are first .. first + blocks - 1 of its table."""

    row: int
    token: int
    keys: int
    first: int
    blocks: int


def _chunks(singles: list[_Single], block_bytes: int) -> list[list[_Single]]:
    """Rows of like length together, so that padding and scratch stay small; order is kept inside
    a chunk."""
    chunks: list[list[_Single]] = []
    widest = waste = 0
    for single in sorted(singles, key=lambda s: -s.blocks):
        waste += (widest - single.blocks) * block_bytes
        if chunks and waste <= WASTE_BYTES:
            size = (len(chunks[-1]) + 1) * widest * block_bytes
            if size <= SCRATCH_BYTES:
                chunks[-1].append(single)
                continue
        chunks.append([single])
        widest, waste = single.blocks, 0
    return [sorted(chunk, key=lambda s: s.row) for chunk in chunks]


def _decode_chunk(
    q: Tensor, rows: list[_Single], block_tables: Tensor, block_size: int, window: int
) -> DecodeChunk:
    device = q.device
    width = max(s.blocks for s in rows)

    def column(values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=device)[:, None]

    whole = len(rows) == q.shape[0]
    first, keys = column([s.first for s in rows]), column([s.keys for s in rows])
    last = column([s.first + s.blocks - 1 for s in rows])
    index = torch.minimum(first + torch.arange(width, device=device), last)
    blocks = block_tables[column([s.row for s in rows]), index].flatten()
    position = first * block_size + torch.arange(width * block_size, device=device)
    hidden = position >= keys
    if window:
        hidden |= position < keys - window
    exact = all(
        (s.first + width) * block_size == s.keys
        and (window == 0 or s.first * block_size >= s.keys - window)
        for s in rows
    )
    mask = padding = None
    if not exact:
        mask = torch.zeros(hidden.shape, dtype=q.dtype, device=device)
        mask = mask.masked_fill_(hidden, float("-inf"))[:, None, None]
        padding = torch.tensor(
            [
                i * width * block_size + t
                for i, s in enumerate(rows)
                for t in range(s.keys - s.first * block_size, width * block_size)
            ],
            dtype=torch.int64,
            device=device,
        )
    tokens = None if whole else column([s.token for s in rows])[:, 0]
    return DecodeChunk(tokens, blocks, len(rows), mask, padding)


def _prefill_parts(
    q: Tensor, token: int, queries: int, keys: int, table: Tensor, block_size: int, window: int
) -> list[PrefillPart]:
    if queries == keys and (window == 0 or keys <= window):
        blocks = table[: -(-keys // block_size)]
        return [PrefillPart(token, token + queries, 0, keys, blocks, None)]
    parts: list[PrefillPart] = []
    for lo in range(0, queries, MASKED_QUERIES):
        hi = min(queries, lo + MASKED_QUERIES)
        start, end = keys - queries + lo, keys - queries + hi  # positions of the queries
        first = max(0, start - window + 1) if window else 0
        origin = first - first % block_size
        at = torch.arange(start, end, device=q.device)[:, None]
        key_at = torch.arange(first, end, device=q.device)[None, :]
        hidden = key_at > at
        if window:
            hidden |= key_at <= at - window
        mask = torch.zeros(hidden.shape, dtype=q.dtype, device=q.device)
        mask = mask.masked_fill_(hidden, float("-inf"))[None, None]
        blocks = table[origin // block_size : -(-end // block_size)]
        parts.append(
            PrefillPart(token + lo, token + hi, first - origin, end - origin, blocks, mask)
        )
    return parts
