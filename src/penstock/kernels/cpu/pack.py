"""Weights in the layouts that the kernels read.

All formats share one shape: blocks of 32 outputs; in a block, steps along K; in a step, 4 bytes
for each of the 32 outputs, so that an AVX-512 vector holds a step of 16 outputs and an AMX tile 16
steps. A step is 1 (float32), 2 (bfloat16) or 4 (int8) elements of K. An int4 step is 8: byte i of
an output holds element i in its low and element i + 4 in its high half. N is padded to 32 and K to
64 bytes of activations, with zeros. The layout is the same for every instruction set, so that a
packed file may move between machines.

int8 is symmetric with a float32 scale an output and is stored with 128 added: the instructions
multiply unsigned by signed bytes. int4 stands for q - 8 times a float16 scale, one for each output
and 32 elements of K.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from penstock.kernels.cpu.memory import ARENA

BLOCK = 32
"""outputs"""
GROUP = 32
"""elements of K that share an int4 scale"""


class Format(IntEnum):
    """How a weight is stored. The values are those of types.h."""

    FLOAT32 = 0
    BFLOAT16 = 1
    INT8 = 2
    INT4 = 3


_K_MULTIPLE = {Format.FLOAT32: 16, Format.BFLOAT16: 32, Format.INT8: 64, Format.INT4: 64}


@dataclass(frozen=True, slots=True)
class PackedWeight:
    """A matrix [n, k] in a kernel's layout."""

    format: Format
    n: int
    k: int
    data: Tensor
    """uint8, contiguous"""
    scales: Tensor | None = None
    """int8: float32 [padded n]; int4: float16 [padded n / 32, padded k / 32, 32]"""
    bias: Tensor | None = None
    """float32 [padded n]"""
    parts: int = 1
    """integer formats: rows of activations are rotated over so many runs before they are
    quantized (see kernels/rotation.py); the matrix was rotated when it was quantized"""

    @property
    def num_bytes(self) -> int:
        """What one pass over the weight reads."""
        return self.data.numel() + (
            0 if self.scales is None else self.scales.numel() * self.scales.element_size()
        )


def pack_float(weight: Tensor, bias: Tensor | None = None) -> PackedWeight:
    """weight float32 or bfloat16 [n, k], kept in its dtype; bias [n] of any dtype."""
    form = Format.FLOAT32 if weight.dtype == torch.float32 else Format.BFLOAT16
    unit = 1 if form == Format.FLOAT32 else 2
    n, k = weight.shape
    data = _blocks(_pad(weight, _K_MULTIPLE[form]), unit)
    return PackedWeight(form, n, k, _bytes(data), None, _pad_bias(bias))


def pack_int8(
    q: Tensor, scales: Tensor, bias: Tensor | None = None, parts: int = 1
) -> PackedWeight:
    """q int8 [n, k] in -127 .. 127, scales [n]: the matrix is q * scales[:, None]."""
    n, k = q.shape
    stored = _pad(q, _K_MULTIPLE[Format.INT8]).view(torch.uint8) ^ 0x80
    padded = torch.zeros(stored.shape[0], dtype=torch.float32)
    padded[:n] = scales
    data = _bytes(_blocks(stored, 4))
    return PackedWeight(Format.INT8, n, k, data, padded, _pad_bias(bias), parts)


def pack_int4(
    q: Tensor, scales: Tensor, bias: Tensor | None = None, parts: int = 1
) -> PackedWeight:
    """q uint8 [n, k] in 0 .. 15, scales [n, ceil(k / 32)]: the matrix is (q - 8) * scales, a scale
    for each 32 elements of K."""
    n, k = q.shape
    stored = _pad(q, _K_MULTIPLE[Format.INT4])
    groups = stored.shape[1] // GROUP
    padded = torch.zeros(stored.shape[0], groups, dtype=torch.float16)
    padded[:n, : scales.shape[1]] = scales
    grouped = padded.view(-1, BLOCK, groups).transpose(1, 2).contiguous()
    octets = stored.view(stored.shape[0], -1, 2, 4)
    nibbles = octets[:, :, 0] | octets[:, :, 1] << 4
    data = _bytes(_blocks(nibbles.flatten(1), 4))
    return PackedWeight(Format.INT4, n, k, data, grouped, _pad_bias(bias), parts)


def interleave(gate: Tensor, up: Tensor) -> Tensor:
    """Rows of two matrices [n, ...] as the epilogue SiLU(gate) * up wants them: 16 of the gate's,
    then 16 of the up's, and so on; n is padded to 16 with zeros."""
    half = BLOCK // 2
    padded = [_pad_rows(part, half) for part in (gate, up)]
    parts = [part.view(-1, half, *part.shape[1:]) for part in padded]
    return torch.stack(parts, 1).flatten(0, 2)


def unpack(weight: PackedWeight) -> Tensor:
    """The matrix float32 [n, k] that a packed weight stands for."""
    form, n, k = weight.format, weight.n, weight.k
    if form in (Format.FLOAT32, Format.BFLOAT16):
        dtype = torch.float32 if form == Format.FLOAT32 else torch.bfloat16
        return _rows(weight.data.view(dtype), n, 1 if form == Format.FLOAT32 else 2)[:n, :k].float()
    assert weight.scales is not None
    if form == Format.INT8:
        rows = (_rows(weight.data, n, 4) ^ 0x80).view(torch.int8)
        return rows[:n, :k].float() * weight.scales[:n, None]
    nibbles = _rows(weight.data, n, 4)
    nibbles = nibbles.view(len(nibbles), -1, 4)
    rows = torch.stack((nibbles & 15, nibbles >> 4), 2).flatten(1)
    scales = weight.scales.transpose(1, 2).flatten(0, 1).float()
    return ((rows.float() - 8) * scales.repeat_interleave(GROUP, 1))[:n, :k]


def _pad_rows(matrix: Tensor, multiple: int) -> Tensor:
    missing = -matrix.shape[0] % multiple
    return torch.cat((matrix, matrix.new_zeros(missing, *matrix.shape[1:]))) if missing else matrix


def _pad(matrix: Tensor, k_multiple: int) -> Tensor:
    matrix = _pad_rows(matrix, BLOCK)
    missing = -matrix.shape[1] % k_multiple
    return torch.nn.functional.pad(matrix, (0, missing)) if missing else matrix


def _blocks(matrix: Tensor, unit: int) -> Tensor:
    """[n, k] -> [n / 32, k / unit, 32, unit]."""
    n, k = matrix.shape
    blocks = matrix.reshape(n // BLOCK, BLOCK, k // unit, unit).transpose(1, 2)
    return ARENA.zeros(tuple(blocks.shape), blocks.dtype).copy_(blocks)


def _rows(data: Tensor, n: int, unit: int) -> Tensor:
    """The inverse of `_blocks`, from flat data."""
    blocks = -(-n // BLOCK)
    steps = data.view(blocks, -1, BLOCK, unit)
    return steps.transpose(1, 2).reshape(blocks * BLOCK, -1)


def _bytes(data: Tensor) -> Tensor:
    return data.flatten().view(torch.uint8)


def _pad_bias(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else _pad_rows(bias.float(), BLOCK).contiguous()
