"""What a model offers to the engine, and what it is made from."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from penstock.attention.base import AttentionBackend, AttnBatch
from penstock.core.plan import KVGroup
from penstock.layers.targets import Targets
from penstock.quant.base import LinearFormat


class CausalLM(Protocol):
    """A language model over paged keys and values. Call it under `torch.inference_mode()`."""

    kv_groups: tuple[KVGroup, ...]
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_positions: int
    """tokens of the longest sequence that the model is meant for"""

    def forward(
        self, ids: Tensor, positions: Tensor, caches: list[Tensor], batch: AttnBatch
    ) -> Tensor:
        """One step over a packed batch; writes the K and V of its tokens to the caches.

        ids, positions: int64 [tokens]. caches: one a layer, from the backend's `allocate`.
        Returns the hidden states after the final norm [tokens, hidden_size]. Waits for no device.
        """
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [rows, hidden_size] -> float32 [rows, vocab_size]."""
        ...


class LoadableLM(CausalLM, Protocol):
    """A model whose weights come from a checkpoint."""

    def targets(self) -> Targets:
        """Every checkpoint tensor that the model needs, with its place."""
        ...

    def spare(self, name: str) -> bool:
        """Whether a checkpoint tensor that has no target may be left out without harm."""
        ...


class ModelPlan(Protocol):
    """A config.json that was understood: what the registry's `read` functions return."""

    @property
    def kv_groups(self) -> tuple[KVGroup, ...]: ...

    def build(
        self,
        dtype: torch.dtype,
        device: torch.device,
        backend: AttentionBackend,
        format: LinearFormat,
    ) -> LoadableLM:
        """The model with uninitialised weights."""
        ...
