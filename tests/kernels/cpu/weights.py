"""Random weights in each format, for tests of the kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from penstock.kernels.cpu import pack
from penstock.kernels.cpu.ops import Batch, GroupTables
from penstock.kernels.cpu.pack import Format, PackedWeight
from penstock.kernels.symmetric import quantize_rows

NOTHING = torch.empty(0, dtype=torch.int64)


def packed(form: Format, weight: Tensor, bias: Tensor | None = None) -> PackedWeight:
    """float32 [n, k] rounded to a format."""
    if form == Format.FLOAT32:
        return pack.pack_float(weight, bias)
    if form == Format.BFLOAT16:
        return pack.pack_float(weight.bfloat16(), bias)
    if form == Format.INT8:
        q, scales = quantize_rows(weight)
        return pack.pack_int8(q, scales[:, 0], bias)
    missing = -weight.shape[1] % pack.GROUP
    groups = torch.nn.functional.pad(weight, (0, missing)).unflatten(1, (-1, pack.GROUP))
    scales = groups.abs().amax(2) / 7
    whole = (groups / scales[..., None].clamp(min=1e-9)).round().clamp(-8, 7).flatten(1)
    return pack.pack_int4((whole + 8).to(torch.uint8)[:, : weight.shape[1]], scales, bias)


def batch(tokens: int, wanted: Tensor = NOTHING, groups: tuple[GroupTables, ...] = ()) -> Batch:
    """Tokens without rows, for ops that are no attention."""
    ids = torch.zeros(tokens, dtype=torch.int64)
    starts = torch.zeros(1, dtype=torch.int32)
    return Batch(ids, ids, starts, starts[:0], wanted, groups)
