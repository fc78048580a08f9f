"""Drives a model one request at a time, without an engine: blocks allocated by hand, in an order
that is neither ascending nor contiguous."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from penstock.attention.base import AttentionBackend, AttnBatch, GroupTables
from penstock.engine.weights import load_model
from penstock.models.base import CausalLM
from penstock.parallel.ranks import ALONE, RankGroup
from penstock.registry import ATTENTION_BACKENDS
from tests import oracle

CPU = torch.device("cpu")


class Sequence:
    """One request: its tokens, and its blocks in every KV group (the same ids in each)."""

    def __init__(
        self,
        model: CausalLM,
        backend: AttentionBackend,
        block_size: int,
        dtype: torch.dtype = torch.float32,
        ranks: RankGroup = ALONE,
    ) -> None:
        self._model, self._size, self._ranks = model, block_size, ranks
        limit = 256 // block_size
        self._caches = [
            backend.allocate(limit, block_size, model.num_kv_heads, model.head_dim, dtype, CPU)
            for group in model.kv_groups
            for _ in group.layers
        ]
        self._table = torch.randperm(limit, generator=torch.Generator().manual_seed(1))
        self._length = 0

    def feed(self, tokens: list[int]) -> Tensor:
        """Compute the next tokens. Returns their logits [tokens, vocab_size], or
        on an early stage what it passes on."""
        positions = torch.arange(self._length, self._length + len(tokens))
        self._length += len(tokens)
        size = self._size
        slots = self._table[positions // size] * size + positions % size
        tables = tuple(
            GroupTables(self._table[None].to(torch.int32), slots) for _ in self._model.kv_groups
        )
        batch = AttnBatch(
            query_start=torch.tensor([0, len(tokens)], dtype=torch.int32),
            seq_lens=torch.tensor([self._length], dtype=torch.int32),
            groups=tables,
            query_lens_host=[len(tokens)],
            seq_lens_host=[self._length],
        )
        with torch.inference_mode():
            x = torch.tensor(tokens)
            if not self._ranks.stage.first:
                x = torch.empty(len(tokens), self._model.hidden_size)
                self._ranks.receive(x)
            hidden = self._model.forward(x, positions, self._caches, batch)
            if self._ranks.stage.last:
                return self._model.logits(hidden)
            self._ranks.send(hidden)
            return hidden


def generate(
    model: CausalLM,
    backend: AttentionBackend,
    prompt: list[int],
    n: int,
    block_size: int = 16,
    chunk: int = 1 << 30,
    dtype: torch.dtype = torch.float32,
) -> tuple[list[int], Tensor]:
    """n greedy ids, and the logits of every position [prompt + n - 1, vocab_size]. dtype: of the
    cache."""
    sequence = Sequence(model, backend, block_size, dtype)
    parts = [sequence.feed(prompt[i : i + chunk]) for i in range(0, len(prompt), chunk)]
    ids: list[int] = []
    while True:
        ids.append(int(parts[-1][-1].argmax()))
        if len(ids) == n:
            return ids, torch.cat(parts)
        parts.append(sequence.feed(ids[-1:]))


def check_against_oracle(
    family: str, shape: oracle.Shape, folder: Path, num_prompts: int, new: int, backend: str
) -> None:
    """Ids and logits of greedy requests, one at a time, are those of transformers."""
    path = oracle.make_checkpoint(family, shape, shape.seed, folder)
    attention: AttentionBackend = ATTENTION_BACKENDS.load(backend)()
    model = load_model(path, torch.float32, CPU, attention)
    for i, prompt in enumerate(oracle.prompts(shape.seed, num_prompts, model.vocab_size)):
        expected = oracle.answer(path, tuple(prompt), new)
        block_size, chunk = (16, 4)[i % 2], (7, 16, 1 << 30)[i % 3]
        ids, logits = generate(model, attention, prompt, new, block_size, chunk)
        torch.testing.assert_close(logits, expected.logits, rtol=0, atol=oracle.TOLERANCE)
        assert ids == expected.ids


def check_half_precision(family: str, shape: oracle.Shape, folder: Path) -> None:
    """In bfloat16, logits lie no further from the float32 truth than those of transformers do."""
    path = oracle.make_checkpoint(family, shape, shape.seed, folder)
    attention: AttentionBackend = ATTENTION_BACKENDS.load("torch")()
    model = load_model(path, torch.bfloat16, CPU, attention)
    ours = theirs = 0.0
    for prompt in oracle.prompts(shape.seed, 8, model.vocab_size):
        truth = oracle.logits(path, tuple(prompt), torch.float32)
        found = Sequence(model, attention, 16, torch.bfloat16).feed(prompt)
        ours += float((found - truth).abs().mean())
        theirs += float((oracle.logits(path, tuple(prompt), torch.bfloat16) - truth).abs().mean())
    assert ours < 1.25 * theirs
