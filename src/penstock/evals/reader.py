"""A model that reads windows of tokens through the code that serves: paged cache and all."""

from __future__ import annotations

import torch
from torch import Tensor

from penstock.attention.base import AttentionBackend, AttnBatch, GroupTables
from penstock.engine.kv import allocate_caches
from penstock.models.base import CausalLM


class Reader:
    """One window at a time, in one step, over a cache that holds one."""

    def __init__(
        self,
        model: CausalLM,
        backend: AttentionBackend,
        dtype: torch.dtype,
        device: torch.device,
        context: int,
    ) -> None:
        """context: tokens of the longest window."""
        self.model = model
        self._device = device
        self._block_size = backend.block_sizes[0]
        self._blocks = -(-context // self._block_size)
        self._caches = allocate_caches(
            backend,
            model.kv_groups,
            self._blocks * len(model.kv_groups),
            self._block_size,
            model.num_kv_heads,
            model.head_dim,
            dtype,
            device,
        )

    def hidden(self, ids: list[int]) -> Tensor:
        """Hidden states [tokens, hidden_size]; row i is what predicts token i + 1."""
        count = len(ids)
        positions = torch.arange(count, device=self._device)
        groups = []
        for group in range(len(self.model.kv_groups)):
            first = group * self._blocks
            table = torch.arange(first, first + self._blocks, device=self._device)
            groups.append(GroupTables(table[None].int(), first * self._block_size + positions))
        batch = AttnBatch(
            query_start=torch.tensor([0, count], dtype=torch.int32, device=self._device),
            seq_lens=torch.tensor([count], dtype=torch.int32, device=self._device),
            groups=tuple(groups),
            query_lens_host=[count],
            seq_lens_host=[count],
        )
        tokens = torch.tensor(ids, device=self._device)
        return self.model.forward(tokens, positions, self._caches, batch)
