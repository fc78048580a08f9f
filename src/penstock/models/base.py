"""What a model offers to the engine, and what it is made from."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from penstock.attention.base import AttentionBackend, AttnBatch
from penstock.core.plan import KVGroup
from penstock.layers.targets import Targets
from penstock.parallel.ranks import RankGroup
from penstock.quant.base import LinearFormat


class CausalLM(Protocol):
    """A language model over paged keys and values. Call it under `torch.inference_mode()`."""

    kv_groups: tuple[KVGroup, ...]
    num_kv_heads: int
    """of this rank"""
    head_dim: int
    hidden_size: int
    dtype: torch.dtype
    """of hidden states"""
    vocab_size: int
    max_positions: int
    """tokens of the longest sequence that the model is meant for"""

    def forward(
        self, x: Tensor, positions: Tensor, caches: list[Tensor], batch: AttnBatch
    ) -> Tensor:
        """One step over a packed batch; writes the K and V of its tokens to the caches.

        x: ids int64 [tokens]; on a later pipeline stage the hidden states [tokens, hidden_size]
        of the one before, which it may overwrite. positions: int64 [tokens]. caches: one a layer,
        from the backend's `allocate`. Returns the hidden states after the final norm, or those
        to pass on. Waits for no device.
        """
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [rows, hidden_size] -> float32 [rows, vocab_size]; on ranks other than 0 of a
        group only some of the columns. All ranks call it alike."""
        ...


class LoadableLM(CausalLM, Protocol):
    """A model whose weights come from a checkpoint."""

    def targets(self) -> Targets:
        """Every checkpoint tensor that the model needs, with its place."""
        ...

    def spare(self, name: str) -> bool:
        """Whether a checkpoint tensor that has no target may be left out without harm."""
        ...


@runtime_checkable
class SelfLoading(Protocol):
    """A LoadableLM that reads its checkpoint by itself."""

    def load(self, path: Path) -> None:
        """Fill the model from a checkpoint folder. Raises CheckpointError, UnsupportedError."""
        ...


class ModelPlan(Protocol):
    """A config.json that was understood: what the registry's `read` functions return."""

    def build(
        self,
        dtype: torch.dtype,
        device: torch.device,
        backend: AttentionBackend,
        format: LinearFormat,
        ranks: RankGroup,
    ) -> LoadableLM:
        """The model, or one rank's part of it, with uninitialised weights."""
        ...
