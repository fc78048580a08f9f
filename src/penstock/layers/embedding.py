"""The token table: ids to vectors, and hidden states back to logits."""

from __future__ import annotations

import torch
from torch import Tensor

from penstock.layers.targets import Target, Targets
from penstock.parallel.ranks import ALONE, RankGroup, entire
from penstock.quant.base import LinearFormat
from penstock.quant.plain import PLAIN


class Embedding:
    """A row per token id. A tied model uses the same table as its head.

    Each rank of a group holds the rows of some ids: it looks up these and adds zeros for the
    others, and computes the logits of these.
    """

    def __init__(
        self,
        vocab_size: int,
        size: int,
        dtype: torch.dtype,
        device: torch.device,
        format: LinearFormat = PLAIN,
        ranks: RankGroup = ALONE,
        scale: float = 1.0,
    ) -> None:
        """scale: of what is looked up; it is rounded to `dtype`, as in training."""
        self.scale = float(torch.tensor(scale, dtype=dtype))
        self.ids = ranks.split(vocab_size, "the vocabulary")
        self._size = size
        self._ranks = ranks
        self.table = format.table(self.ids.count, size, dtype, device)

    def __call__(self, ids: Tensor) -> Tensor:
        """ids int64 [tokens] -> [tokens, size]."""
        if not self.ids.partial:
            return self._scaled(self.table.rows(ids))
        own = ids - self.ids.first
        rows = self.table.rows(own.clamp(0, self.ids.count - 1))
        rows = rows.masked_fill_(((own < 0) | (own >= self.ids.count))[:, None], 0.0)
        self._ranks.all_reduce(rows)
        return self._scaled(rows)

    def _scaled(self, rows: Tensor) -> Tensor:
        return rows if self.scale == 1.0 else rows * self.scale

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [rows, size] -> float32 [rows, vocab_size]; on ranks other than 0 only the
        columns of their own ids."""
        return self._ranks.gather_columns(self.table.logits(hidden), self.ids.whole)

    def targets(self, prefix: str) -> Targets:
        place = self.table.place(0, self.ids.count)
        return {f"{prefix}.weight": Target(place, parts=(self.ids, entire(self._size)))}
