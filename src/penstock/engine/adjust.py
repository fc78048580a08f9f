"""What happens to logits before the draw: bias and masks, then penalties. In place, exact.

Everything here is sparse: a row costs its entries and its known tokens, never the vocabulary.
Order: one float32 addition for logit_bias, and -inf for what bad_words and min_tokens ban; then,
over the tokens seen so far, in float32 and in this order:

    repetition   x / r where x > 0, else x * r        tokens of prompt and output
    frequency    x - frequency * count                 count in the output
    presence     x - presence                          where count > 0
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from penstock.core.request import Sampling

_ALWAYS = 2**62


class Histories:
    """Known tokens of the slots whose parameters look back, kept on the device.

    A row is kept up by the draws themselves: with two plans in flight the next step is drawn
    before the host has seen this one.
    """

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        self._vocab_size = vocab_size
        self.tokens = torch.zeros(0, 256, dtype=torch.int64, device=device)
        """[rows, capacity]: prompt, then output; past a row's length any valid ids"""
        self.counts = torch.zeros(0, vocab_size, dtype=torch.int32, device=device)
        """[rows, V]: 2 * (times in the output) + (1 where the prompt has it)"""
        self._free: list[int] = []

    def take(self, tokens: list[int], num_prompt: int) -> int:
        """A row that starts with `tokens`; give it back with `give`."""
        if not self._free:
            self._grow(rows=max(4, 2 * len(self.tokens)), capacity=self.tokens.shape[1])
        self.reserve(len(tokens))
        row = self._free.pop()
        known = np.asarray(tokens, dtype=np.int64)
        counts = 2 * np.bincount(known[num_prompt:], minlength=self._vocab_size)
        counts[known[:num_prompt]] |= 1
        self.tokens[row, : len(known)] = torch.from_numpy(known)
        self.counts[row] = torch.from_numpy(counts.astype(np.int32))
        return row

    def give(self, row: int) -> None:
        self._free.append(row)

    def reserve(self, length: int) -> None:
        """Make room for rows of `length` tokens."""
        if length > self.tokens.shape[1]:
            capacity = max(length, 2 * self.tokens.shape[1])
            self._grow(rows=len(self.tokens), capacity=capacity)

    def record(self, rows: Tensor, places: Tensor, ids: Tensor) -> None:
        """Token ids[j] stands at places[j] of row rows[j]; all int64 [R]."""
        self.tokens[rows, places] = ids
        self.counts[rows, ids] += 2

    def _grow(self, rows: int, capacity: int) -> None:
        old = len(self.tokens)
        tokens = self.tokens.new_zeros(rows, capacity)
        tokens[:old, : self.tokens.shape[1]] = self.tokens
        self.tokens = tokens
        if rows > old:
            self.counts = torch.cat(
                [self.counts, self.counts.new_zeros(rows - old, self._vocab_size)]
            )
            self._free.extend(range(rows - 1, old - 1, -1))


@dataclass(slots=True)
class Masks:
    """Additions to single logits: biases, and -inf for bans that hold below a position."""

    flat: Tensor
    """int64 [E]: row * V + id"""
    values: Tensor
    """float32 [E]"""
    rows: Tensor
    """int64 [E]"""
    until: Tensor
    """int64 [E]: the value is added while position < until"""

    def apply(self, logits: Tensor, positions: Tensor) -> None:
        values = torch.where(positions[self.rows] < self.until, self.values, 0.0)
        logits.view(-1).index_add_(0, self.flat, values)


@dataclass(slots=True)
class BadWords:
    """Sequences of two and more ids: the last is banned where the others have just been seen."""

    flat: Tensor
    """int64 [E]: row * V + last id"""
    rows: Tensor
    """int64 [E]: rows of the batch"""
    histories: Tensor
    """int64 [E]: rows of the histories"""
    num_prompt: Tensor
    """int64 [E]"""
    prefixes: Tensor
    """int64 [E, L]: aligned at the right, padded with -1 on the left"""

    def apply(self, logits: Tensor, positions: Tensor, histories: Histories) -> None:
        width = self.prefixes.shape[1]
        back = torch.arange(-width, 0, device=logits.device)
        places = (self.num_prompt + positions[self.rows])[:, None] + back
        seen = histories.tokens[self.histories[:, None], places.clamp(min=0)]
        same = ((seen == self.prefixes) & (places >= 0)) | (self.prefixes < 0)
        values = torch.where(same.all(1), float("-inf"), 0.0)
        logits.view(-1).index_add_(0, self.flat, values)


@dataclass(slots=True)
class Penalties:
    """Penalties of the rows that have any; parameters are float32 [R, 1]."""

    rows: Tensor
    """int64 [R]: rows of the batch"""
    histories: Tensor
    """int64 [R]: rows of the histories"""
    repetition: Tensor
    frequency: Tensor
    presence: Tensor

    def apply(self, logits: Tensor, histories: Histories, length: int) -> None:
        """`length`: at least the tokens of each row; more does no harm.

        An id that occurs twice (or that stands past a row's length) is written twice with the
        same value, because the value depends on the id's count alone.
        """
        ids = histories.tokens[self.histories, :length]
        counts = histories.counts[self.histories[:, None], ids]
        x = logits[self.rows[:, None], ids]
        repeated = torch.where(x > 0, x / self.repetition, x * self.repetition)
        x = torch.where(counts > 0, repeated, x)
        x = x - self.frequency * (counts >> 1)
        x = x - self.presence * (counts > 1)
        logits[self.rows[:, None], ids] = x


def looks_back(sampling: Sampling) -> bool:
    """Whether the parameters need a row of `Histories`."""
    return has_penalties(sampling) or any(len(word) > 1 for word in _banned(sampling))


def _banned(sampling: Sampling) -> tuple[tuple[int, ...], ...]:
    """Bad words that are dealt with here: beside a grammar, the mask sees to them (see
    `constraints`), and to min_tokens."""
    return () if sampling.grammar else sampling.bad_words


def has_penalties(sampling: Sampling) -> bool:
    return (
        sampling.repetition_penalty != 1.0
        or sampling.frequency_penalty != 0.0
        or sampling.presence_penalty != 0.0
    )


def build_masks(
    samplings: Sequence[Sampling], vocab_size: int, device: torch.device
) -> Masks | None:
    """Masks of a batch with one `Sampling` a row, or None when there are none."""
    entries: list[tuple[int, int, float, int]] = []
    for row, sampling in enumerate(samplings):
        values = dict[int, float]()
        for token, bias in sampling.logit_bias:
            values[token] = values.get(token, 0.0) + bias
        values.update((word[0], -np.inf) for word in _banned(sampling) if len(word) == 1)
        entries += [(row, token, value, _ALWAYS) for token, value in values.items()]
        if sampling.min_tokens > 0 and not sampling.grammar:
            stops = dict.fromkeys(sampling.stop_ids)
            entries += [(row, token, -np.inf, sampling.min_tokens) for token in stops]
    if not entries:
        return None
    rows, tokens, biases, until = zip(*entries, strict=True)
    at = torch.tensor(rows, device=device)
    return Masks(
        flat=at * vocab_size + torch.tensor(tokens, device=device),
        values=torch.tensor(biases, dtype=torch.float32, device=device),
        rows=at,
        until=torch.tensor(until, device=device),
    )


def build_bad_words(
    samplings: Sequence[Sampling],
    histories: Sequence[int],
    num_prompt: Sequence[int],
    vocab_size: int,
    device: torch.device,
) -> BadWords | None:
    """Bad words of a batch; `histories` and `num_prompt` have one number a row."""
    entries = [
        (row, word)
        for row, sampling in enumerate(samplings)
        for word in _banned(sampling)
        if len(word) > 1
    ]
    if not entries:
        return None
    width = max(len(word) for _, word in entries) - 1
    rows = torch.tensor([row for row, _ in entries], device=device)
    last = torch.tensor([word[-1] for _, word in entries], device=device)
    prefixes = [[-1] * (width + 1 - len(word)) + list(word[:-1]) for _, word in entries]
    return BadWords(
        flat=rows * vocab_size + last,
        rows=rows,
        histories=torch.tensor([histories[row] for row, _ in entries], device=device),
        num_prompt=torch.tensor([num_prompt[row] for row, _ in entries], device=device),
        prefixes=torch.tensor(prefixes, device=device),
    )


def build_penalties(
    samplings: Sequence[Sampling], histories: Sequence[int], device: torch.device
) -> Penalties | None:
    """Penalties of a batch, or None when no row has any."""
    rows = [row for row, sampling in enumerate(samplings) if has_penalties(sampling)]
    if not rows:
        return None

    def column(name: str) -> Tensor:
        values = [getattr(samplings[row], name) for row in rows]
        return torch.tensor(values, dtype=torch.float32, device=device)[:, None]

    return Penalties(
        rows=torch.tensor(rows, device=device),
        histories=torch.tensor([histories[row] for row in rows], device=device),
        repetition=column("repetition_penalty"),
        frequency=column("frequency_penalty"),
        presence=column("presence_penalty"),
    )
