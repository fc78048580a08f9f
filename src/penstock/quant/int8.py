"""8-bit weights by output channel, 8-bit activations by token.

    rotation      of tables, and of matrices whose input has outliers: W H / parts stands for W and
                  x H for x below, in float32, see `rotation`
    weights       scale_w[n] = max |W[n]| / 127, q_w = round-half-even(W / scale_w)
    activations   scale_x[t] and q_x by token, see `kernels.symmetric`
    result        ((float32(sum_k q_x q_w) * scale_x[t]) * scale_w[n]) (+ bias[n])

The sum is an exact int32; everything else is float32 in the order written (the int32 is rounded
half to even), then cast to the activations' dtype. Logits stay float32. A row that an embedding
looks up is (q_w * scale_w) H in float32, cast to the activations' dtype. A row of zeros has the
scale 0. State: 8 bits a weight and 32 a row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from penstock.errors import CheckpointError, UnsupportedError
from penstock.kernels.cpu import quantize
from penstock.kernels.rotation import num_parts, rotate
from penstock.kernels.symmetric import quantize_rows
from penstock.quant.integers import MOST_TERMS, product

BLOCK = 1 << 20
"""Weights that are brought into the format at a time: the copies in float32 stay small."""
GREATEST = 2**16
"""Bound of a weight's magnitude: any scale then fits float16."""


class Int8Matrix:
    """A Matrix and a Table: `values` int8 [rows, size], `scales` float32 [rows], rotated over
    `parts` runs (1: not at all)."""

    def __init__(
        self,
        rows: int,
        size: int,
        dtype: torch.dtype,
        device: torch.device,
        parts: int = 1,
    ) -> None:
        """Raises UnsupportedError where the sum of a row could leave int32."""
        if size > MOST_TERMS:
            raise UnsupportedError(
                f"--quantization int8 cannot sum rows of {size} weights exactly in 32 bits.",
                cure=f"Use --quantization none; the longest row is {MOST_TERMS}.",
                param="quantization",
            )
        self.values = torch.empty(rows, size, dtype=torch.int8, device=device)
        self.scales = torch.empty(rows, dtype=torch.float32, device=device)
        self.parts = parts
        self._dtype = dtype

    def place(self, first: int, count: int) -> Int8Rows:
        """See Matrix.place."""
        rows = slice(first, first + count)
        return Int8Rows(self.values[rows], self.scales[rows], self.parts)

    def __call__(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """See Matrix."""
        y = self.logits(x)
        if bias is not None:
            y += bias
        return y.to(x.dtype)

    def rows(self, ids: Tensor) -> Tensor:
        """See Table.rows."""
        rows = self.values[ids].float() * self.scales[ids, None]
        return rotate(rows, self.parts).to(self._dtype)

    def logits(self, hidden: Tensor) -> Tensor:
        """See Table.logits."""
        q, scale = quantize_rows(rotate(hidden, self.parts))
        return product(q, self.values).float().mul_(scale).mul_(self.scales)


def check_finite(greatest: float) -> None:
    """Raise CheckpointError for a greatest magnitude of weights that no scale can stand for."""
    if not greatest < GREATEST:
        raise CheckpointError(
            f"The checkpoint has a weight that is not finite, or not below {GREATEST}: it cannot "
            "be quantized.",
            cure="Check the checkpoint, or use --quantization none.",
        )


def quantize_weights(w: Tensor) -> tuple[Tensor, Tensor]:
    """w float32 [n, size] -> (q int8 [n, size], scale float32 [n])."""
    greatest = w.abs().amax(dim=1)
    scale = greatest / torch.full_like(greatest, 127.0)
    levels = (w / scale[:, None]).where(scale[:, None] > 0, torch.zeros_like(w))
    return levels.round_().clamp_(-127.0, 127.0).to(torch.int8), scale


class Int8Rows:
    """Some rows of a matrix, as a Place."""

    def __init__(self, values: Tensor, scales: Tensor, parts: int) -> None:
        self._values = values
        self._scales = scales
        self._parts = parts

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._values.shape)

    @property
    def nbytes(self) -> int:
        return self._values.nbytes + self._scales.nbytes

    def copy_(self, tensor: Tensor, /) -> None:
        """Quantize [rows, size]."""
        if quantize.runs(self._values):
            found = quantize.quantize_int8(tensor, self._parts, self._values, self._scales)
            check_finite(found)
            return
        count = max(1, BLOCK // tensor.shape[1])
        whole = (tensor, self._values, self._scales)
        parts = zip(*(torch.split(part, count) for part in whole), strict=True)
        for weights, values, scales in parts:
            w = weights.to(values.device, torch.float32)
            check_finite(float(w.abs().amax()))
            q, scale = quantize_weights(rotate(w, self._parts) / self._parts)
            values.copy_(q)
            scales.copy_(scale)


class Int8:
    """See LinearFormat."""

    name = "int8"
    group_size = 1  # a rank that holds a part of the inputs has scales of its own for that part

    def matrix(
        self,
        rows: int,
        size: int,
        dtype: torch.dtype,
        device: torch.device,
        outliers: bool = False,
    ) -> Int8Matrix:
        return Int8Matrix(rows, size, dtype, device, num_parts(size) if outliers else 1)

    def table(self, rows: int, size: int, dtype: torch.dtype, device: torch.device) -> Int8Matrix:
        return Int8Matrix(rows, size, dtype, device, num_parts(size))
