"""4-bit weights with a scale for each group of 32, 8-bit activations by token.

    rotation      of matrices whose input has outliers: W H / parts stands for W and x H for x
                  below, in float32, see `rotation`
    weights       W = q_w * scale_w, q_w in -8 .. 7, scale_w[n, g] a float16 (it may be negative)
                  chosen by `quantize_groups`
    activations   scale_x[t] and q_x by token, see `kernels.symmetric`
    result        total = 0; for g in ascending order:
                      total = fma(float32(sum_{k in g} q_x q_w), float32(scale_w[n, g]), total)
                  (total * scale_x[t]) (+ bias[n])

The sum of a group is an exact integer, fma rounds once to float32, everything else is float32 in
the order written, then cast to the activations' dtype. Rows are padded with zeros to whole groups.
Embeddings and heads are int8 by row (see `int8`). State: 4 bits a weight and 16 a group: 4.5 bits.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from penstock.kernels.cpu import quantize
from penstock.kernels.rotation import num_parts, rotate
from penstock.kernels.symmetric import quantize_rows
from penstock.quant.int8 import BLOCK, Int8Matrix, check_finite

GROUP = 32
HALF = GROUP // 2
GRID = (6.5, 7.0, 7.5, 8.0, 8.5, 9.0, 9.5, 10.0)
"""Levels that the weight of the greatest magnitude in a group is tried at, below zero: that is
where the 16 levels reach further. (Trying both sides of zero and 40 levels lowers the squared
error by another 0.6 % of round-to-nearest's; these 8 lower it by 10.7 %.)"""
SEARCH = 1 << 16
"""Weights searched at a time, so that the copies stay in the processor's cache."""
TOTALS = 1 << 16
"""Results computed at a time, for the same reason."""


def quantize_groups(w: Tensor) -> tuple[Tensor, Tensor]:
    """w float32 [n, 32] -> (q as float32 [n, 32] in -8 .. 7, scale float16 [n, 1]).

    For each level of GRID: round w times the inverse of the scale that puts the greatest weight
    there, take the scale of the least squared error for these roundings, in float16. The best of
    these scales is kept, and q = clamp(round-half-even(w / scale), -8, 7). Sums are in float32, in
    the order of `_sum`.
    """
    columns = w.t().contiguous()  # elements of one place in all groups: sums go over few, long rows
    greatest = columns.gather(0, columns.abs().argmax(dim=0, keepdim=True))
    least = torch.full_like(greatest, torch.inf)
    best = torch.zeros_like(greatest)
    for level in GRID:
        q = _round(columns * (torch.full_like(greatest, -level) / greatest))
        # An empty group gives 0 / 0, which loses every comparison: its scale stays 0.
        scale = (_sum(columns * q) / _sum(q * q)).half().float()
        error = _sum((columns - q * scale).square_())
        better = error < least
        least = error.where(better, least)
        best = scale.where(better, best)
    return _round(columns / best).t(), best.half().t()


def _round(x: Tensor) -> Tensor:
    return x.nan_to_num_(0.0).round_().clamp_(-8.0, 7.0)


def _sum(columns: Tensor) -> Tensor:
    """[32, n] -> [1, n]: the second half is added to the first, and so on."""
    while len(columns) > 1:
        half = len(columns) // 2
        columns = columns[:half] + columns[half:]
    return columns


class Int4Matrix:
    """A Matrix: `values` uint8 [rows, groups, 16], `scales` float16 [rows, groups], rotated over
    `parts` runs (1: not at all).

    Byte i of a group holds weight i in its low and weight i + 16 in its high half, each as q + 8.
    """

    def __init__(self, rows: int, size: int, device: torch.device, parts: int = 1) -> None:
        groups = -(-size // GROUP)
        self.values = torch.empty(rows, groups, HALF, dtype=torch.uint8, device=device)
        self.scales = torch.empty(rows, groups, dtype=torch.float16, device=device)
        self.parts = parts
        self.size = size

    def place(self, first: int, count: int) -> Int4Rows:
        """See Matrix.place."""
        rows = slice(first, first + count)
        return Int4Rows(self.values[rows], self.scales[rows], self.size, self.parts)

    def __call__(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """See Matrix."""
        rows, groups = self.scales.shape
        q, scale = quantize_rows(rotate(x, self.parts))
        q = pad(q, (0, groups * GROUP - self.size)).float().view(len(x), groups, GROUP)
        count = max(1, min(BLOCK // (groups * GROUP), TOTALS // max(1, len(x))))
        parts = [self._totals(q, slice(i, i + count)) for i in range(0, rows, count)]
        y = torch.cat(parts, dim=1).mul_(scale)
        if bias is not None:
            y += bias
        return y.to(x.dtype)

    def _totals(self, q: Tensor, rows: slice) -> Tensor:
        """The sum over groups, before the activations' scale: q [tokens, groups, 32] -> float32
        [tokens, rows].

        A group's sum is below 2**15 and exact in float32. float64 holds fma's exact value, a
        multiple of float16's least step 2**-24, as long as it is below 2**29: one rounding.
        """
        w = self.integers(rows)
        scales = self.scales[rows].double()
        total = torch.zeros(len(q), len(w), dtype=torch.float64, device=q.device)
        for g in range(w.shape[1]):
            dot = q[:, g] @ w[:, g].t()
            total = total.addcmul_(dot.double(), scales[:, g]).float().double()
        return total.float()

    def integers(self, rows: slice) -> Tensor:
        """q_w as float32 [rows, groups, 32]."""
        packed = self.values[rows]
        q = torch.empty(*packed.shape[:2], GROUP, device=packed.device)
        q[..., :HALF] = packed & 15
        q[..., HALF:] = packed >> 4
        return q.sub_(8.0)


class Int4Rows:
    """Some rows of a matrix, as a Place."""

    def __init__(self, values: Tensor, scales: Tensor, size: int, parts: int) -> None:
        self._values = values
        self._scales = scales
        self.size = size
        self._parts = parts

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self._values), self.size)

    @property
    def nbytes(self) -> int:
        return self._values.nbytes + self._scales.nbytes

    def copy_(self, tensor: Tensor, /) -> None:
        """Quantize [rows, size]."""
        if quantize.runs(self._values):
            found = quantize.quantize_int4(tensor, self._parts, self._values, self._scales)
            check_finite(found)
            return
        groups = self._scales.shape[1]
        count = max(1, SEARCH // (groups * GROUP))
        whole = (tensor, self._values, self._scales)
        parts = zip(*(torch.split(part, count) for part in whole), strict=True)
        for weights, values, scales in parts:
            w = weights.to(values.device, torch.float32)
            check_finite(float(w.abs().amax()))
            w = rotate(w, self._parts) / self._parts
            w = pad(w, (0, groups * GROUP - self.size)).view(-1, GROUP)
            q, scale = quantize_groups(w)
            levels = (q + 8.0).to(torch.uint8).view(-1, groups, GROUP)
            values.copy_(levels[..., :HALF] | levels[..., HALF:] << 4)
            scales.copy_(scale.view(-1, groups))


class Int4:
    """See LinearFormat."""

    name = "int4"
    group_size = GROUP

    def matrix(
        self,
        rows: int,
        size: int,
        dtype: torch.dtype,
        device: torch.device,
        outliers: bool = False,
    ) -> Int4Matrix:
        return Int4Matrix(rows, size, device, num_parts(size) if outliers else 1)

    def table(self, rows: int, size: int, dtype: torch.dtype, device: torch.device) -> Int8Matrix:
        return Int8Matrix(rows, size, dtype, device, num_parts(size))
