"""Weights into integer formats, in C++: many times faster than torch, and free of its threads.

The formats' own torch code (quant/int8.py, quant/int4.py) is the specification and the twin.
"""

from __future__ import annotations

import torch
from torch import Tensor

from penstock.kernels import cpu


def runs(values: Tensor) -> bool:
    """Whether the kernels write to this memory."""
    return values.device.type == "cpu" and cpu.available() is None


def quantize_int8(w: Tensor, parts: int, values: Tensor, scales: Tensor) -> float:
    """w [rows, size] of any floating dtype, rotated over `parts` -> values int8 [rows, size],
    scales float32 [rows]. Returns the greatest magnitude in w; where that is not finite, values
    and scales mean nothing."""
    return _quantize("quantize_int8", w, parts, values, scales)


def quantize_int4(w: Tensor, parts: int, values: Tensor, scales: Tensor) -> float:
    """The same -> values uint8 [rows, groups, 16], scales float16 [rows, groups]."""
    return _quantize("quantize_int4", w, parts, values, scales)


def _quantize(name: str, w: Tensor, parts: int, values: Tensor, scales: Tensor) -> float:
    w = w if w.dtype == torch.bfloat16 else w.float()
    w = w if w.stride(1) == 1 else w.contiguous()
    assert values.is_contiguous()
    assert scales.is_contiguous()
    greatest: float = getattr(cpu.native(), name)(
        w.data_ptr(),
        w.dtype == torch.bfloat16,
        *w.shape,
        w.stride(0),
        parts,
        values.data_ptr(),
        scales.data_ptr(),
        torch.get_num_threads(),
    )
    return greatest
