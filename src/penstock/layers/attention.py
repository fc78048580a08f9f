"""Self-attention of one layer: projections and rotation here, keys and values in the backend."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import rms_norm

from penstock.attention.base import AttentionBackend, AttnBatch
from penstock.layers.linear import Linear
from penstock.layers.rotary import Rotation
from penstock.layers.targets import Target, Targets
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
    """Grouped-query attention over paged keys and values."""

    def __init__(
        self,
        shape: AttentionShape,
        backend: AttentionBackend,
        dtype: torch.dtype,
        device: torch.device,
        format: LinearFormat = PLAIN,
    ) -> None:
        self.shape = shape
        self._backend = backend
        self._scale = shape.head_dim**-0.5
        q_size = shape.num_heads * shape.head_dim
        kv_size = shape.num_kv_heads * shape.head_dim
        parts = {"q_proj": q_size, "k_proj": kv_size, "v_proj": kv_size}
        self.qkv = Linear(shape.hidden_size, parts, shape.qkv_bias, dtype, device, format)
        out = {"o_proj": shape.hidden_size}
        self.out = Linear(q_size, out, shape.out_bias, dtype, device, format)
        self.norm: Tensor | None = None
        if shape.norm_eps is not None:
            # The weight is kept once a head, so that one product serves queries and keys.
            rows = shape.num_heads + shape.num_kv_heads
            self.norm = torch.empty(rows, shape.head_dim, dtype=dtype, device=device)

    def __call__(self, x: Tensor, rotation: Rotation, cache: Tensor, batch: AttnBatch) -> Tensor:
        """x [tokens, hidden_size] -> the same shape; writes this layer's K and V to `cache`."""
        shape = self.shape
        heads = self.qkv(x).view(x.shape[0], -1, shape.head_dim)
        rotated, v = heads[:, : -shape.num_kv_heads], heads[:, -shape.num_kv_heads :]
        if self.norm is not None:
            rotated = rms_norm(rotated, [shape.head_dim], None, shape.norm_eps) * self.norm
        if shape.rotary:
            rotated = rotation(rotated)
        q, k = rotated[:, : shape.num_heads], rotated[:, shape.num_heads :]
        tables = batch.groups[shape.group]
        self._backend.write(cache, k, v, tables)
        out = self._backend.attend(q, cache, batch, tables, self._scale, shape.window)
        return self.out(out.reshape(x.shape[0], -1))

    def targets(self, prefix: str) -> Targets:
        found = self.qkv.targets(prefix) | self.out.targets(prefix)
        if self.norm is not None:
            q, k = self.norm[: self.shape.num_heads], self.norm[self.shape.num_heads :]
            found[f"{prefix}.q_norm.weight"] = Target(q, repeated=True)
            found[f"{prefix}.k_norm.weight"] = Target(k, repeated=True)
        return found
