"""The draw of engine/draw.py by the kernels: rows of logits to tokens, without torch's threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from penstock.kernels import cpu

if TYPE_CHECKING:
    from penstock.kernels.cpu import _native


class Drawer:
    """Draws from one vocabulary. Not thread-safe."""

    def __init__(self, workers: _native.Pool, vocab_size: int, isa: str | None = None) -> None:
        """`isa`: one of `cpu.isas()`, the best where None."""
        self._pool = workers
        self._isa = isa or cpu.isas()[-1]
        self._keys = torch.empty(self._pool.threads * vocab_size, dtype=torch.int64)

    def __call__(
        self,
        logits: Tensor,
        inverse_temperature: Tensor,
        top_k: Tensor,
        top_p: Tensor,
        min_p: Tensor,
        uniform: Tensor,
    ) -> Tensor:
        """Ids int64 [rows], -1 for a row that is not finite.

        logits: float32 [rows, vocab_size] with contiguous rows; the others contiguous [rows], top_k
        int64, the rest float64; inverse_temperature 0 is greedy.
        """
        rows, vocab_size = logits.shape
        ids = torch.empty(rows, dtype=torch.int64)
        cpu.native().draw(
            self._pool,
            self._isa,
            logits.data_ptr(),
            logits.stride(0),
            rows,
            vocab_size,
            inverse_temperature.data_ptr(),
            top_k.data_ptr(),
            top_p.data_ptr(),
            min_p.data_ptr(),
            uniform.data_ptr(),
            self._keys.data_ptr(),
            ids.data_ptr(),
        )
        return ids
