"""The formats' specifications in plain numpy and Python integers, one number at a time."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

F32 = np.float32
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def quantize_rows(x: Floats) -> tuple[Ints, Floats]:
    """int8 and scale by row."""
    q, scales = np.zeros(x.shape, np.int64), np.zeros(len(x), F32)
    for row, values in enumerate(x):
        greatest = np.abs(values).max()
        scales[row] = greatest / F32(127)
        if greatest > 2.0**-120:
            q[row] = np.rint(values * (F32(127) / greatest)).astype(np.int64)
    return q, scales


def quantize_weights(w: Floats) -> tuple[Ints, Floats]:
    """int8 and scale by row."""
    q, scales = np.zeros(w.shape, np.int64), np.zeros(len(w), F32)
    for row, values in enumerate(w):
        scales[row] = np.abs(values).max() / F32(127)
        if scales[row] > 0:
            q[row] = np.rint(values / scales[row]).astype(np.int64)
    return q, scales


def rotate(x: Floats, parts: int) -> Floats:
    """Butterflies over runs of each row."""
    rows = x.astype(F32).copy()
    length = x.shape[1] // parts
    h = 1
    while h < parts:
        for i in range(parts):
            if not i & h:
                a = rows[:, i * length : (i + 1) * length].copy()
                b = rows[:, (i + h) * length : (i + h + 1) * length].copy()
                rows[:, i * length : (i + 1) * length] = a + b
                rows[:, (i + h) * length : (i + h + 1) * length] = a - b
        h *= 2
    return rows


def int8(x: Floats, w: Floats, bias: Floats | None = None) -> Floats:
    """The product of the int8 format [tokens, rows]."""
    qx, sx = quantize_rows(x)
    qw, sw = quantize_weights(w)
    y = np.zeros((len(x), len(w)), F32)
    for t, n in np.ndindex(*y.shape):
        total = sum(int(a) * int(b) for a, b in zip(qx[t], qw[n], strict=True))
        y[t, n] = F32(total) * sx[t] * sw[n]
        if bias is not None:
            y[t, n] += bias[n]
    return y


def int4(x: Floats, q: Ints, scales: NDArray[np.float16], bias: Floats | None = None) -> Floats:
    """The product of the int4 format, from levels [rows, groups, 32] and scales [rows, groups]."""
    qx, sx = quantize_rows(x)
    qx = np.pad(qx, ((0, 0), (0, q.shape[1] * 32 - x.shape[1])))
    y = np.zeros((len(x), len(q)), F32)
    for t, n in np.ndindex(*y.shape):
        total = F32(0)
        for g, part in enumerate(qx[t].reshape(-1, 32)):
            dot = sum(int(a) * int(b) for a, b in zip(part, q[n, g], strict=True))
            total = nearest(dot * Fraction(float(scales[n, g])) + Fraction(float(total)))
        y[t, n] = total * sx[t]
        if bias is not None:
            y[t, n] += bias[n]
    return y


def nearest(exact: Fraction) -> np.float32:
    """The float32 nearest to a fraction, ties to even: what a fused multiply-add rounds to."""
    guess = F32(float(exact))
    around = [np.nextafter(guess, F32(-np.inf)), guess, np.nextafter(guess, F32(np.inf))]

    def order(value: np.float32) -> tuple[Fraction, int]:
        return abs(Fraction(float(value)) - exact), int(value.view(np.uint32)) & 1

    return min(around, key=order)


def q4_0(w: Floats) -> Floats:
    """Round-to-nearest in groups of 32, the greatest weight at -8, float16 scales (llama.cpp's
    Q4_0): the weights that it stands for."""
    groups = w.reshape(-1, 32)
    greatest = np.take_along_axis(groups, np.abs(groups).argmax(1)[:, None], 1)
    scale = greatest / F32(-8)
    with np.errstate(divide="ignore"):
        inverse = np.where(scale != 0, F32(1) / scale, F32(0))
    q = np.clip(np.floor(groups * inverse + F32(8.5)), 0, 15) - 8
    return (q * scale.astype(np.float16).astype(F32)).reshape(w.shape).astype(F32)
