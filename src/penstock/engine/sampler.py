"""From logits to tokens: every request's own parameters, all in one batch.

What a row yields is a function of its logits, its parameters, its known tokens and
(seed, choice, position) alone: never of its neighbours. The order of work:

    raw logprobs for rows that ask  ->  bias, masks, penalties (`adjust`), grammars (`bitmask`)
      ->  greedy or filters and the draw (`draw`, the specification)  ->  histories

`random` gives the numbers. What depends only on the batch's composition is built once and kept
while the composition stays.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from penstock.core.plan import TokenLogprobs
from penstock.core.request import Sampling
from penstock.engine import adjust, draw, random
from penstock.engine.bitmask import Masks
from penstock.engine.logprobs import Logprobs, logprobs_of
from penstock.errors import UnsupportedError
from penstock.kernels.cpu.drawing import Drawer

if TYPE_CHECKING:
    from penstock.kernels.cpu import _native

_SMALL_K = 1024
"""rows with a top_k up to this share one selection of candidates"""
_CHUNK_BYTES = {"cpu": 4 * 2**20, "other": 256 * 2**20}
"""bound of one temporary tensor, by device: on a CPU it should stay in the cache"""


@dataclass(slots=True)
class Sampled:
    """What `Sampler.sample` drew. Only the properties wait for the device."""

    ids: Tensor
    """int64 [R] on the logits' device; -1 for a bad row"""
    _logprobs: Logprobs | None = None
    _asked: dict[int, int] = field(default_factory=dict)

    @property
    def logprobs(self) -> dict[int, TokenLogprobs]:
        """By row, for rows that asked."""
        if self._logprobs is None:
            return {}
        return dict(zip(self._asked, self._logprobs.records(self._asked.values()), strict=True))

    @property
    def bad_rows(self) -> list[int]:
        """Rows that cannot be drawn from: NaN or infinite logits, or every token masked."""
        return torch.nonzero(self.ids < 0)[:, 0].tolist()


@dataclass(slots=True)
class _Slot:
    sampling: Sampling
    num_prompt: int
    stream: int
    history: int
    """row of the histories, -1 when the parameters do not look back"""


@dataclass(slots=True)
class _Group:
    """Rows that one function of `draw` treats; k_max is 0 without top_k."""

    rows: Tensor
    filters: draw.Filters
    k_max: int
    filtered: bool


@dataclass(slots=True)
class _Batch:
    """What follows from the composition of a batch alone."""

    key: tuple[int, ...]
    epoch: int
    streams: NDArray[np.uint64]
    filters: draw.Filters
    """of all rows"""
    random: bool
    """whether any row is not greedy"""
    groups: list[_Group]
    """rows that torch draws"""
    masks: adjust.Masks | None
    bad_words: adjust.BadWords | None
    penalties: adjust.Penalties | None
    num_prompt: NDArray[np.int64]
    looking: NDArray[np.int64]
    """rows with a history"""
    looking_rows: Tensor
    looking_histories: Tensor
    asked: dict[int, int]
    """rows that want logprobs -> alternatives"""
    asked_rows: Tensor


class Sampler:
    """The sampling state of all slots of one engine. Not thread-safe."""

    def __init__(
        self,
        vocab_size: int,
        max_slots: int,
        device: torch.device,
        workers: _native.Pool | None = None,
    ) -> None:
        """workers: let the CPU kernels draw, on these; the ids are the same. Raises
        UnsupportedError for a vocabulary above `draw.MAX_VOCAB`."""
        if vocab_size > draw.MAX_VOCAB:
            raise UnsupportedError(
                f"A vocabulary of {vocab_size} is more than the sampler's {draw.MAX_VOCAB}.",
                cure="Serve a model with a smaller vocabulary.",
            )
        self._vocab_size = vocab_size
        self._device = device
        self._drawer = None if workers is None else Drawer(workers, vocab_size)
        self._slots: list[_Slot | None] = [None] * max_slots
        self._histories = adjust.Histories(vocab_size, device)
        bound = _CHUNK_BYTES["cpu" if device.type == "cpu" else "other"]
        self._chunk = max(1, bound // (8 * vocab_size))
        """rows that are worked on at a time"""
        self._epoch = 0
        self._batch: _Batch | None = None

    def enter(self, slot: int, sampling: Sampling, tokens: list[int], num_prompt: int) -> None:
        """A request takes a slot: new, or back after preemption.

        tokens: all known ids, the prompt's `num_prompt` first, then output. Whatever the slot
        held before is forgotten.
        """
        old = self._slots[slot]
        if old is not None and old.history >= 0:
            self._histories.give(old.history)
        history = -1
        if adjust.looks_back(sampling):
            history = self._histories.take(tokens, num_prompt)
        stream = random.stream(sampling.seed, sampling.choice)
        self._slots[slot] = _Slot(sampling, num_prompt, stream, history)
        self._epoch += 1

    def sample(
        self,
        logits: Tensor,
        slots: list[int],
        positions: list[int],
        masks: Masks | None = None,
    ) -> Sampled:
        """Draw one token a row and record it in the row's slot.

        logits: float32 [R, V], modified in place. slots[j]: the slot of row j, each at most once.
        positions[j]: index of the drawn token among the request's outputs, 0 for the first.
        masks: tokens that some rows may draw.
        """
        batch = self._composition(slots)
        at = np.asarray(positions, dtype=np.int64)
        raw = logits[batch.asked_rows] if batch.asked else None
        self._adjust(logits, batch, at)
        if masks is not None:
            masks.apply(logits)
        ids = self._draw(logits, batch, at)
        self._record(ids, batch, at)
        if raw is None:
            return Sampled(ids)
        chosen = ids[batch.asked_rows].clamp(min=0)
        top = max(batch.asked.values())
        return Sampled(ids, logprobs_of(raw, chosen, top, self._chunk), batch.asked)

    def prompt_logprobs(self, logits: Tensor, ids: list[int], top: int) -> list[TokenLogprobs]:
        """Raw logprobs of prompt tokens: row p of float32 [P, V] predicts ids[p]."""
        if not ids:
            return []
        found = logprobs_of(logits, _indices(ids, logits.device), top, self._chunk)
        return found.records([top] * len(ids))

    def _adjust(self, logits: Tensor, batch: _Batch, at: NDArray[np.int64]) -> None:
        if batch.masks is None and not len(batch.looking):
            return
        positions = torch.from_numpy(at).to(self._device)
        if batch.masks is not None:
            batch.masks.apply(logits, positions)
        if batch.bad_words is not None:
            batch.bad_words.apply(logits, positions, self._histories)
        if batch.penalties is not None:
            length = int((batch.num_prompt + at)[batch.looking].max())
            batch.penalties.apply(logits, self._histories, length)

    def _draw(self, logits: Tensor, batch: _Batch, at: NDArray[np.int64]) -> Tensor:
        numbers = torch.empty(0)
        if batch.random:
            numbers = torch.from_numpy(random.uniforms(batch.streams, at)).to(self._device)
        if self._drawer is not None:
            f = batch.filters
            return self._drawer(logits, f.inverse_temperature, f.top_k, f.top_p, f.min_p, numbers)
        maxima, ids = draw.greedy(logits)
        if batch.groups:
            step = self._chunk
            for group in batch.groups:
                for first in range(0, len(group.rows), step):
                    part = slice(first, first + step)
                    rows = group.rows[part]
                    ids[rows] = _draw_part(group, part, logits[rows], maxima[rows], numbers[rows])
        return torch.where(maxima.isfinite(), ids, -1)

    def _record(self, ids: Tensor, batch: _Batch, at: NDArray[np.int64]) -> None:
        if not len(batch.looking):
            return
        places = (batch.num_prompt + at)[batch.looking]
        self._histories.reserve(int(places.max()) + 1)
        drawn = ids[batch.looking_rows].clamp(min=0)
        where = torch.from_numpy(places).to(self._device)
        self._histories.record(batch.looking_histories, where, drawn)

    def _composition(self, slots: list[int]) -> _Batch:
        key = tuple(slots)
        batch = self._batch
        if batch is None or batch.epoch != self._epoch or batch.key != key:
            batch = self._batch = self._build(key)
        return batch

    def _build(self, key: tuple[int, ...]) -> _Batch:
        states = [self._state(slot) for slot in key]
        samplings = [state.sampling for state in states]
        histories = [state.history for state in states]
        prompts = [state.num_prompt for state in states]
        looking = [row for row, history in enumerate(histories) if history >= 0]
        asked = {row: s.logprobs for row, s in enumerate(samplings) if s.logprobs is not None}
        vocab, device = self._vocab_size, self._device
        return _Batch(
            key=key,
            epoch=self._epoch,
            streams=np.array([state.stream for state in states], dtype=np.uint64),
            filters=self._filters(samplings),
            random=any(map(_random, samplings)),
            groups=self._groups(samplings) if self._drawer is None else [],
            masks=adjust.build_masks(samplings, vocab, device),
            bad_words=adjust.build_bad_words(samplings, histories, prompts, vocab, device),
            penalties=adjust.build_penalties(samplings, histories, device),
            num_prompt=np.array(prompts, dtype=np.int64),
            looking=np.array(looking, dtype=np.int64),
            looking_rows=_indices(looking, device),
            looking_histories=_indices([histories[row] for row in looking], device),
            asked=asked,
            asked_rows=_indices(list(asked), device),
        )

    def _state(self, slot: int) -> _Slot:
        state = self._slots[slot]
        if state is None:
            raise KeyError(f"no request has entered slot {slot}")
        return state

    def _groups(self, samplings: list[Sampling]) -> list[_Group]:
        """Rows by the way that they are drawn; greedy rows are in no group."""
        kinds: dict[str, list[int]] = {"all": [], "wide": [], "small": [], "large": []}
        for row, s in enumerate(samplings):
            if not _random(s):
                continue
            if 0 < s.top_k < self._vocab_size:
                kinds["small" if s.top_k <= _SMALL_K else "large"].append(row)
            else:
                kinds["wide" if s.top_p < 1 or s.min_p > 0 else "all"].append(row)
        return [self._group(kind, rows, samplings) for kind, rows in kinds.items() if rows]

    def _group(self, kind: str, rows: list[int], samplings: list[Sampling]) -> _Group:
        chosen = [samplings[row] for row in rows]
        k_max = max(s.top_k for s in chosen) if kind in ("small", "large") else 0
        return _Group(_indices(rows, self._device), self._filters(chosen), k_max, kind != "all")

    def _filters(self, samplings: list[Sampling]) -> draw.Filters:
        def column(values: list[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float64, device=self._device)

        return draw.Filters(
            inverse_temperature=column([1 / s.temperature if _random(s) else 0 for s in samplings]),
            top_k=_indices([s.top_k for s in samplings], self._device),
            top_p=column([s.top_p for s in samplings]),
            min_p=column([s.min_p for s in samplings]),
        )


def _random(sampling: Sampling) -> bool:
    return sampling.temperature >= draw.GREEDY_BELOW


def _draw_part(
    group: _Group, part: slice, logits: Tensor, maxima: Tensor, uniform: Tensor
) -> Tensor:
    filters = group.filters.part(part)
    if group.k_max:
        return draw.draw_top_k(logits, maxima, filters, uniform, group.k_max)
    if group.filtered:
        return draw.draw_wide(logits, maxima, filters, uniform)
    return draw.draw_all(logits, maxima, filters, uniform)


def _indices(values: list[int], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.int64, device=device)
