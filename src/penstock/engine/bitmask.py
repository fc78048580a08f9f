"""Bitmasks over the vocabulary: which tokens a row may draw. The last change before the draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(slots=True)
class Masks:
    """Of those rows of a batch that have one."""

    rows: Tensor
    """int64 [R]: rows of the batch"""
    bits: Tensor
    """uint8 [R, bytes]: bit i % 8 of byte i // 8 allows token i"""

    def apply(self, logits: Tensor) -> None:
        """-inf for what is not allowed, in place. logits: float32 [batch, V]."""
        shifts = torch.arange(8, dtype=torch.uint8, device=self.bits.device)
        banned = (self.bits[:, :, None] >> shifts).bitwise_and_(1).view(len(self.bits), -1) == 0
        banned = banned[:, : logits.shape[1]]
        for j, row in enumerate(self.rows.tolist()):  # a view each: no copy of the logits
            logits[row].masked_fill_(banned[j], float("-inf"))


def on_device(
    rows: Sequence[int], bits: Sequence[NDArray[np.uint32]], device: torch.device
) -> Masks:
    """bits: one array [words] a row."""
    packed = torch.from_numpy(np.stack(bits).view(np.uint8))
    return Masks(torch.tensor(rows), packed.to(device))
