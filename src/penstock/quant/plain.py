"""No quantization: weights in the dtype of the activations, products by torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding, linear


class PlainMatrix:
    """A Matrix and a Table: `values` [rows, size]."""

    def __init__(self, rows: int, size: int, dtype: torch.dtype, device: torch.device) -> None:
        self.values = torch.empty(rows, size, dtype=dtype, device=device)

    def place(self, first: int, count: int) -> Tensor:
        """See Matrix.place."""
        return self.values[first : first + count]

    def __call__(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """See Matrix."""
        return linear(x, self.values, bias)

    def rows(self, ids: Tensor) -> Tensor:
        """See Table.rows."""
        return embedding(ids, self.values)

    def logits(self, hidden: Tensor) -> Tensor:
        """See Table.logits."""
        return linear(hidden, self.values).float()


class Plain:
    """See LinearFormat."""

    name = "none"

    def matrix(
        self,
        rows: int,
        size: int,
        dtype: torch.dtype,
        device: torch.device,
        outliers: bool = False,
    ) -> PlainMatrix:
        return PlainMatrix(rows, size, dtype, device)

    def table(self, rows: int, size: int, dtype: torch.dtype, device: torch.device) -> PlainMatrix:
        return PlainMatrix(rows, size, dtype, device)


PLAIN = Plain()
