"""The seam of linear formats: storage for weights, made at load from any checkpoint.

One format = one file. A layer asks the format for storage and knows nothing else of it. Checkpoint
tensors are read one at a time and brought into the format as they come, so that no second copy of
a model is ever held. The docstrings of the formats are their specification: native kernels
implement exactly these expressions.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Place(Protocol):
    """Memory that one checkpoint tensor fills: a tensor, or some rows of a quantized matrix."""

    @property
    def shape(self) -> tuple[int, ...]:
        """What the checkpoint's tensor must have."""
        ...

    @property
    def nbytes(self) -> int:
        """What is stored for it, scales included."""
        ...

    def copy_(self, tensor: Tensor, /) -> object:
        """Take over a tensor of `shape`, of any floating dtype."""
        ...


class Matrix(Protocol):
    """Weights W [rows, size] of a linear layer; `rows` may be the parts of several fused layers."""

    def place(self, first: int, count: int) -> Place:
        """Where the rows first .. first + count - 1 are loaded."""
        ...

    def __call__(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """x W^T + bias: x [tokens, size] -> [tokens, rows] in x's dtype; bias [rows]."""
        ...


class Table(Protocol):
    """A row per token id [rows, size]: what an embedding reads and a head multiplies with."""

    def place(self, first: int, count: int) -> Place:
        """Where the rows first .. first + count - 1 are loaded."""
        ...

    def rows(self, ids: Tensor) -> Tensor:
        """ids int64 [tokens] -> [tokens, size] in the model's dtype."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [tokens, size] -> float32 [tokens, rows]."""
        ...


class LinearFormat(Protocol):
    """Makes uninitialised storage; `dtype` is that of activations."""

    name: str

    def matrix(
        self,
        rows: int,
        size: int,
        dtype: torch.dtype,
        device: torch.device,
        outliers: bool = False,
    ) -> Matrix:
        """Storage for a linear layer; `outliers`: what enters it has a few values far above the
        rest. Raises UnsupportedError for shapes that cannot be exact."""
        ...

    def table(self, rows: int, size: int, dtype: torch.dtype, device: torch.device) -> Table:
        """Storage for an embedding, a head, or both at once (tied)."""
        ...
