"""Symmetric int8 by row: activations, and the keys and values of an int8 cache."""

from __future__ import annotations

import torch
from torch import Tensor

LEAST = 2.0**-120
"""Rows without a greater magnitude count as zeros: 127 / LEAST is still a finite float32."""


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """x [..., size] -> int8 [..., size], float32 scale [..., 1]; a row is the last dimension.

    In float32: m = max |x|; scale = m / 127; q = round-half-even(x * (127 / m)), clamped to
    -127 .. 127; all q are 0 where m <= LEAST. A row with a NaN or an infinity has a scale that
    is one, and so no finite result.
    """
    x = x.float()
    greatest = x.abs().amax(dim=-1, keepdim=True)
    # Tensors on both sides: for a number torch multiplies by a rounded reciprocal on some devices.
    levels = torch.full_like(greatest, 127.0)
    usable = (greatest > LEAST) & greatest.isfinite()
    inverse = (levels / greatest).where(usable, torch.zeros_like(greatest))
    q = (x * inverse).nan_to_num_(0.0).round_().clamp_(-127.0, 127.0)
    return q.to(torch.int8), greatest / levels
