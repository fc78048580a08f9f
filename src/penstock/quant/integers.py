"""What the integer formats share: products that are exact.

Exactness is what makes the formats batch invariant: an integer sum has one value in any order, so
a row's result cannot depend on the rows beside it, and any kernel can equal these twins.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

MOST_TERMS = (2**31 - 1) // (128 * 128)
"""Longest row (131,071 terms) whose int8 products cannot leave int32."""
EXACT_TERMS = 1024
"""Terms of at most 127 * 128 whose sum float32 holds exactly: 1024 * 127 * 128 < 2**24."""


def product(a: Tensor, b: Tensor) -> Tensor:
    """a [m, k] times b^T [n, k], both int8 without -128 in a -> int32 [m, n], exact.

    k is at most MOST_TERMS. Where the CPU has no exact int8 instruction, and on other devices,
    slices of k are summed in float32: values up to 128 are exact even in bfloat16 or TF32, and
    sums below 2**24 in float32 accumulators, whatever their order.
    """
    if a.device.type == "cpu" and int8_matmul_is_exact():
        return torch._int_mm(a, b.t())
    return float_product(a, b)


def float_product(a: Tensor, b: Tensor) -> Tensor:
    """The same as `product`, by float32 products of slices."""
    total = torch.zeros(len(a), len(b), dtype=torch.int32, device=a.device)
    for first in range(0, a.shape[1], EXACT_TERMS):
        columns = slice(first, first + EXACT_TERMS)
        total += (a[:, columns].float() @ b[:, columns].float().t()).int()
    return total


@cache
def int8_matmul_is_exact() -> bool:
    """Whether torch's int8 product is exact here, tried out on the greatest sums.

    Without VNNI, oneDNN adds pairs of products in saturating 16 bits.
    """
    signs = torch.tensor([1, 1, -1, -1, 1, -1, 1, 1], dtype=torch.int8).repeat(8)
    for rows in (1, 3, 64):
        a = (signs * 127).repeat(rows, 1)
        b = torch.stack([signs * 127, signs * -128, torch.full_like(signs, 127)] * 11)
        try:
            found = torch._int_mm(a, b.t())
        except RuntimeError:
            return False
        if not torch.equal(found, float_product(a, b)):
            return False
    return True
