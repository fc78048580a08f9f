"""The token table: ids to vectors, and hidden states back to logits."""

from __future__ import annotations

import torch
from torch import Tensor

from penstock.layers.targets import Target, Targets
from penstock.quant.base import LinearFormat
from penstock.quant.plain import PLAIN


class Embedding:
    """A row per token id. A tied model uses the same table as its head."""

    def __init__(
        self,
        vocab_size: int,
        size: int,
        dtype: torch.dtype,
        device: torch.device,
        format: LinearFormat = PLAIN,
    ) -> None:
        self.table = format.table(vocab_size, size, dtype, device)
        self._vocab_size = vocab_size

    def __call__(self, ids: Tensor) -> Tensor:
        """ids int64 [tokens] -> [tokens, size]."""
        return self.table.rows(ids)

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [rows, size] -> float32 [rows, vocab_size]."""
        return self.table.logits(hidden)

    def targets(self, prefix: str) -> Targets:
        return {f"{prefix}.weight": Target(self.table.place(0, self._vocab_size))}
