"""Hadamard rotation: outliers are spread over their neighbours before a row is quantized.

One scale a row suits values of one size. What enters a feed-forward layer's second product, or a
head, has a few values far above the rest, which cost all others their precision. A rotation of the
inputs of W undoes nothing if W is rotated as well: x W^T = (x H) (W H / parts)^T, because H is
symmetric and H H = parts * I (QuaRot, Ashkboos et al. 2024, which rotates far more than this).

A row is cut into `parts` runs of equal length, and H, the Hadamard matrix in Sylvester's order,
mixes the runs: result run i = sum over j of (-1)^popcount(i & j) run j. In float32, as butterflies:

    for h in 1, 2, 4 .. parts / 2:
        for each i with i & h == 0:  run[i], run[i + h] = run[i] + run[i + h], run[i] - run[i + h]
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MOST_PARTS = 32
"""On the demo model, more parts no longer lower the KL divergence."""


def num_parts(size: int) -> int:
    """A power of two that divides the size; 1 means no rotation."""
    return math.gcd(size, MOST_PARTS)


def rotate(x: Tensor, parts: int) -> Tensor:
    """x [rows, size] H as float32, a new tensor (x itself for one part)."""
    x = x.float()
    if parts == 1:
        return x
    mixed, h, length = x, 1, x.shape[1] // parts
    while h < parts:
        pairs = mixed.reshape(len(x), parts // (2 * h), 2, h, length)
        a, b = pairs[:, :, 0], pairs[:, :, 1]
        mixed = torch.stack([a + b, a - b], dim=2)
        h *= 2
    return mixed.reshape(x.shape)
