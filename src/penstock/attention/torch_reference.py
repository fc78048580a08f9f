"""The truth: paged attention in plain torch, one row at a time, in float32.

Slow and obvious on purpose. Every other backend is tested against it. It shares the cache layout
of the fast torch backend: [num_blocks, block_size, 2, num_kv_heads, head_dim]; int8 has 4 elements
more, the bytes of the scale.
"""

from __future__ import annotations

import torch
from torch import Tensor

from penstock.attention.base import SCALE_BYTES, AttnBatch, GroupTables, vector_bytes, zeros
from penstock.kernels.symmetric import quantize_rows


class TorchReference:
    name = "torch-reference"
    block_sizes: tuple[int, ...] = (16, 1, 2, 4, 8, 32, 64, 128, 256)

    def allocate(
        self,
        num_blocks: int,
        block_size: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Tensor:
        """Zeros [num_blocks, block_size, 2, num_kv_heads, size]: a token's K beside its V."""
        size = vector_bytes(head_dim, dtype) // dtype.itemsize
        shape = (num_blocks, block_size, 2, num_kv_heads, size)
        return zeros(shape, dtype, device)

    def write(self, cache: Tensor, k: Tensor, v: Tensor, tables: GroupTables) -> None:
        """See AttentionBackend.write."""
        slots = cache.flatten(0, 1)
        slots[tables.slot_mapping, 0] = stored(k, cache.dtype)
        slots[tables.slot_mapping, 1] = stored(v, cache.dtype)

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
        out = torch.empty_like(q)
        start = 0
        for row in range(batch.num_rows):
            queries, keys = batch.query_lens_host[row], batch.seq_lens_host[row]
            rows_q = q[start : start + queries]
            k, v, first = _row_kv(cache, tables.block_tables[row], queries, keys, window)
            visible = _visible(queries, keys, first, window, q.device)
            out[start : start + queries] = _attention(rows_q, k, v, visible, scale, softcap)
            start += queries
        return out


def stored(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Keys or values [..., head_dim] as a cache of this dtype holds them."""
    if dtype != torch.int8:
        return x.to(dtype)
    q, scale = quantize_rows(x)
    return torch.cat((q, scale.view(torch.int8)), -1)


def restored(held: Tensor, dtype: torch.dtype) -> Tensor:
    """The inverse of `stored`, in the dtype asked for."""
    if held.dtype != torch.int8:
        return held.to(dtype)
    scale = held[..., -SCALE_BYTES:].clone(memory_format=torch.contiguous_format)
    return (held[..., :-SCALE_BYTES].float() * scale.view(torch.float32)).to(dtype)


def _row_kv(
    cache: Tensor, table: Tensor, queries: int, keys: int, window: int
) -> tuple[Tensor, Tensor, int]:
    """K and V float32 [n, num_kv_heads, head_dim] of positions first .. keys - 1, and `first`: the
    first key that any of the row's queries may see (blocks before it may be gone)."""
    block_size = cache.shape[1]
    first = max(0, keys - queries - window + 1) if window else 0
    ids = table[first // block_size : -(-keys // block_size)].long()
    tokens = restored(cache[ids], torch.float32).flatten(0, 1)
    origin = first - first % block_size
    tokens = tokens[first - origin : keys - origin]
    return tokens[:, 0], tokens[:, 1], first


def _visible(queries: int, keys: int, first: int, window: int, device: torch.device) -> Tensor:
    """bool [queries, keys - first]: which key positions each query position sees."""
    at = torch.arange(keys - queries, keys, device=device)[:, None]
    key_at = torch.arange(first, keys, device=device)[None, :]
    visible = key_at <= at
    if window:
        visible &= key_at > at - window
    return visible


def _attention(
    q: Tensor, k: Tensor, v: Tensor, visible: Tensor, scale: float, softcap: float
) -> Tensor:
    group = q.shape[1] // k.shape[1]
    k = k.repeat_interleave(group, dim=1)
    v = v.repeat_interleave(group, dim=1)
    scores = torch.einsum("qhd,khd->hqk", q.float(), k) * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    weights = scores.masked_fill(~visible, float("-inf")).softmax(dim=-1)
    return torch.einsum("hqk,khd->qhd", weights, v).to(q.dtype)
