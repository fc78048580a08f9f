"""Self-attention of one layer: projections and rotation here, keys and values in the backend."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import rms_norm

from penstock.attention.base import AttentionBackend, AttnBatch, GroupTables
from penstock.layers.linear import Linear
from penstock.layers.rotary import Rotation
from penstock.layers.targets import Target, Targets
from penstock.parallel.ranks import ALONE, RankGroup
from penstock.quant.base import LinearFormat
from penstock.quant.plain import PLAIN


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """What one layer's attention looks like. Sizes in elements, window in tokens (0 = full)."""

    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    qkv_bias: bool = False
    out_bias: bool = False
    norm_eps: float | None = None
    """set: queries and keys are normalised by head before the rotation (QK-norm)"""
    rotary: bool = True
    window: int = 0
    group: int = 0
    """index of the layer's KV group"""


class Attention:
    """Grouped-query attention over paged keys and values; a rank computes `num_heads` of the heads
    over `num_kv_heads`."""

    def __init__(
        self,
        shape: AttentionShape,
        backend: AttentionBackend,
        dtype: torch.dtype,
        device: torch.device,
        format: LinearFormat = PLAIN,
        ranks: RankGroup = ALONE,
    ) -> None:
        self.shape = shape
        self._backend = backend
        self._scale = shape.head_dim**-0.5
        heads, kv_heads = ranks.split_heads(shape.num_heads, shape.num_kv_heads)
        self.num_heads, self.num_kv_heads = heads.count, kv_heads.count
        q, kv = heads.times(shape.head_dim), kv_heads.times(shape.head_dim)
        parts = {"q_proj": q, "k_proj": kv, "v_proj": kv}
        self.qkv = Linear(shape.hidden_size, parts, shape.qkv_bias, dtype, device, format, ranks)
        out = {"o_proj": shape.hidden_size}
        self.out = Linear(q, out, shape.out_bias, dtype, device, format, ranks)
        self.norm: Tensor | None = None
        if shape.norm_eps is not None:
            # The weight is kept once a head, so that one product serves queries and keys.
            rows = self.num_heads + self.num_kv_heads
            self.norm = torch.empty(rows, shape.head_dim, dtype=dtype, device=device)

    def __call__(self, x: Tensor, rotation: Rotation, cache: Tensor, batch: AttnBatch) -> Tensor:
        """x [tokens, hidden_size] -> the same shape; writes this layer's K and V to `cache`."""
        shape = self.shape
        heads = self.qkv(x).view(x.shape[0], -1, shape.head_dim)
        rotated, v = heads[:, : -self.num_kv_heads], heads[:, -self.num_kv_heads :]
        if self.norm is not None:
            rotated = rms_norm(rotated, [shape.head_dim], None, shape.norm_eps) * self.norm
        if shape.rotary:
            rotated = rotation(rotated)
        q, k = rotated[:, : self.num_heads], rotated[:, self.num_heads :]
        tables = batch.groups[shape.group]
        if batch.exchange is None:
            self._backend.write(cache, k, v, tables)
        else:
            both = batch.exchange.gather(torch.cat((k, v), dim=1))
            k, v = both.chunk(2, dim=1)
            places = batch.exchange.slot_mappings[shape.group]
            self._backend.write(cache, k, v, GroupTables(tables.block_tables, places))
        out = self._backend.attend(q, cache, batch, tables, self._scale, shape.window)
        return self.out(out.reshape(x.shape[0], -1))

    def targets(self, prefix: str) -> Targets:
        found = self.qkv.targets(prefix) | self.out.targets(prefix)
        if self.norm is not None:
            q, k = self.norm[: self.num_heads], self.norm[self.num_heads :]
            found[f"{prefix}.q_norm.weight"] = Target(q, repeated=True)
            found[f"{prefix}.k_norm.weight"] = Target(k, repeated=True)
        return found
