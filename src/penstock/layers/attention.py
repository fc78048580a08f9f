"""Self-attention of one layer: projections and rotation here, keys and values in the backend."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import rms_norm

from penstock.attention.base import AttentionBackend, AttnBatch
from penstock.layers.linear import Linear
from penstock.layers.norm import Raised
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
    """set: queries and keys are normalised before the rotation (QK-norm)"""
    norm_whole: bool = False
    """over all heads at once, not by head"""
    norm_offset: float = 0.0
    """see RMSNorm"""
    rotary: bool = True
    window: int = 0
    scale: float | None = None
    """of scores; None: head_dim ** -0.5"""
    softcap: float = 0.0
    """see AttentionBackend.attend"""
    group: int = 0
    """index of the layer's KV group"""
    joined: str | None = None
    """the name of q, k and v where the checkpoint has them as one tensor"""

    @property
    def score_scale(self) -> float:
        return self.head_dim**-0.5 if self.scale is None else self.scale


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
        self._ranks = ranks
        heads, kv_heads = ranks.split_heads(shape.num_heads, shape.num_kv_heads)
        self.num_heads, self.num_kv_heads = heads.count, kv_heads.count
        self._q, self._kv = heads.times(shape.head_dim), kv_heads.times(shape.head_dim)
        parts = {"q_proj": self._q, "k_proj": self._kv, "v_proj": self._kv}
        self.qkv = Linear(shape.hidden_size, parts, shape.qkv_bias, dtype, device, format, ranks)
        out = {"o_proj": shape.hidden_size}
        self.out = Linear(self._q, out, shape.out_bias, dtype, device, format, ranks)
        self.norm: Tensor | None = None
        if shape.norm_eps is not None:
            # One row a head, so that one product serves queries and keys.
            rows = self.num_heads + self.num_kv_heads
            kept = torch.float32 if shape.norm_offset else dtype
            self.norm = torch.empty(rows, shape.head_dim, dtype=kept, device=device)

    def __call__(self, x: Tensor, rotation: Rotation, cache: Tensor, batch: AttnBatch) -> Tensor:
        """x [tokens, hidden_size] -> the same shape; writes this layer's K and V to `cache`."""
        shape = self.shape
        heads = self.qkv(x, batch.adapters).view(x.shape[0], -1, shape.head_dim)
        rotated, v = heads[:, : -self.num_kv_heads], heads[:, -self.num_kv_heads :]
        if self.norm is not None:
            scaled = self._over_all(rotated) if shape.norm_whole else self._by_head(rotated)
            rotated = (scaled * self.norm).to(x.dtype)
        if shape.rotary:
            rotated = rotation(rotated)
        q, k = rotated[:, : self.num_heads], rotated[:, self.num_heads :]
        tables = batch.groups[shape.group]
        self._backend.write(cache, k, v, tables)
        out = self._backend.attend(
            q, cache, batch, tables, shape.score_scale, shape.window, shape.softcap
        )
        return self.out(out.reshape(x.shape[0], -1), batch.adapters)

    def _by_head(self, heads: Tensor) -> Tensor:
        """heads [tokens, n, head_dim] / rms of each head, in the norm's dtype."""
        assert self.norm is not None
        return rms_norm(heads.to(self.norm.dtype), [self.shape.head_dim], None, self.shape.norm_eps)

    def _over_all(self, heads: Tensor) -> Tensor:
        """heads [tokens, n, head_dim], queries / rms over the queries of all ranks, keys over the
        keys; float32."""
        shape = self.shape
        assert shape.norm_eps is not None
        parts = torch.split(heads.float(), [self.num_heads, self.num_kv_heads], dim=1)
        squares = torch.stack([part.square().sum((1, 2)) for part in parts])
        self._ranks.all_reduce(squares)
        copies = self.num_kv_heads * self._ranks.size // shape.num_kv_heads
        sizes = (self._q.whole, self._kv.whole * copies)
        scaled = [
            part * (total / size + shape.norm_eps).rsqrt()[:, None, None]
            for part, total, size in zip(parts, squares, sizes, strict=True)
        ]
        return torch.cat(scaled, dim=1)

    def targets(self, prefix: str) -> Targets:
        found = self.qkv.targets(prefix, self.shape.joined) | self.out.targets(prefix)
        if self.norm is None:
            return found
        weights = torch.split(self.norm, [self.num_heads, self.num_kv_heads])
        for name, weight, part in zip("qk", weights, (self._q, self._kv), strict=True):
            if self.shape.norm_whole:
                target = Target(weight.view(-1), parts=(part,))
            elif self.shape.norm_offset:
                target = Target(Raised(weight, self.shape.norm_offset), repeated=True)
            else:
                target = Target(weight, repeated=True)
            found[f"{prefix}.{name}_norm.weight"] = target
        return found
