"""The token table: ids to vectors, and hidden states back to logits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding, linear

from penstock.layers.targets import Target, Targets


class Embedding:
    """A row per token id. A tied model uses the same table as its head."""

    def __init__(
        self, vocab_size: int, size: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.weight = torch.empty(vocab_size, size, dtype=dtype, device=device)

    def __call__(self, ids: Tensor) -> Tensor:
        """ids int64 [tokens] -> [tokens, size]."""
        return embedding(ids, self.weight)

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [rows, size] -> float32 [rows, vocab_size]."""
        return linear(hidden, self.weight).float()

    def targets(self, prefix: str) -> Targets:
        return {f"{prefix}.weight": Target(self.weight)}
