"""The model runner: does plans on one torch device.

A request keeps one row (its slot) while it runs: its ids, its block tables and the last token
drawn stand there, and each step gathers what it needs from the rows of its plan.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from penstock.attention.base import AdapterRows, AttnBatch, GroupTables
from penstock.core.plan import UNKNOWN, AdapterLoad, Entry, StepPlan, StepResult, TokenLogprobs
from penstock.engine.pooling import Pooling
from penstock.engine.sampler import Sampler
from penstock.errors import EngineError
from penstock.models.base import CausalLM
from penstock.parallel.ranks import ALONE, RankGroup

LOGIT_ROWS = 256
"""Most prompt positions whose logits are in memory at once, for prompt logprobs."""

Ints = NDArray[np.int64]


class ModelRunner:
    """Runs plans in the order given. Not thread-safe: one thread at a time.

    All ranks of a group run the same plans. The leader samples and tells the others the ids, which
    need them for the next plan; only its results count. With several stages a plan has known ids
    only (see Limits), and each stage passes its hidden states on.
    """

    def __init__(
        self,
        model: CausalLM,
        caches: list[Tensor],
        block_size: int,
        max_num_seqs: int,
        max_model_len: int,
        device: torch.device,
        ranks: RankGroup = ALONE,
        set_adapter: Callable[[AdapterLoad], None] | None = None,
        max_adapters: int = 0,
    ) -> None:
        """set_adapter: puts an adapter into one of the model's max_adapters slots."""
        self._model = model
        self._set_adapter = set_adapter
        self._max_adapters = max_adapters
        self._adapters = np.full(max_num_seqs, -1, np.int64)
        self._caches = caches
        self._block_size = block_size
        self._device = device
        self._ranks = ranks
        self._waited_s = 0.0
        """of this step, for the stage before: not this device's time"""
        self._sampler = Sampler(model.vocab_size, max_num_seqs, device) if ranks.leads else None
        self._pooling = Pooling()
        self._entries: list[Entry | None] = [None] * max_num_seqs
        self._ids: list[Ints] = [np.zeros(0, np.int64)] * max_num_seqs
        self._num_prompt = np.zeros(max_num_seqs, np.int64)
        self._last = torch.zeros(max_num_seqs, dtype=torch.int64, device=device)
        blocks = -(-max_model_len // block_size)
        self._tables = [np.zeros((max_num_seqs, blocks), np.int32) for _ in model.kv_groups]

    @property
    def num_groups(self) -> int:
        return len(self._tables)

    def run(self, plan: StepPlan) -> StepResult:
        """Do one plan. A failure becomes `StepResult.error`, never an exception."""
        began, self._waited_s = time.perf_counter(), 0.0
        try:
            with torch.inference_mode():
                result = self._run(plan)
        except Exception as error:
            failure = EngineError(f"A step failed: {type(error).__name__}: {error}")
            result = StepResult(plan.step, [], error=failure.to_dict())
        result.device_s = time.perf_counter() - began - self._waited_s
        return result

    def _run(self, plan: StepPlan) -> StepResult:
        self._take_in(plan)
        slots = np.array(plan.slots, np.int64)
        starts = np.array(plan.starts, np.int64)
        counts = np.array(plan.counts, np.int64)
        ids, positions, owners = self._inputs(plan, slots, starts, counts)
        batch = self._batch(slots, starts, counts, positions, owners)
        entering = ids if self._ranks.stage.first else self._received(len(ids))
        hidden = self._model.forward(entering, self._to_device(positions), self._caches, batch)
        result = StepResult(plan.step, [])
        if not self._ranks.stage.last:
            self._ranks.send(hidden)
            return result
        self._score_prompts(plan, hidden, result)
        result.embeddings = self._pooling.pool(plan, hidden)
        wanted = np.flatnonzero(plan.samples)
        if len(wanted):
            last = np.cumsum(counts)[wanted] - 1
            rows = hidden if len(last) == len(hidden) else hidden[self._to_device(last)]
            self._sample(rows, slots[wanted], (starts + counts)[wanted], result)
        return result

    def _received(self, tokens: int) -> Tensor:
        """Hidden states of the stage before."""
        model = self._model
        hidden = torch.empty(tokens, model.hidden_size, dtype=model.dtype, device=self._device)
        began = time.perf_counter()
        self._ranks.receive(hidden)
        self._waited_s = time.perf_counter() - began
        return hidden

    def _take_in(self, plan: StepPlan) -> None:
        for load in plan.adapters:
            assert self._set_adapter is not None
            self._set_adapter(load)
        for entry in plan.entries:
            slot = entry.slot
            self._adapters[slot] = entry.adapter
            self._entries[slot] = entry
            self._ids[slot] = np.array(entry.tokens, np.int64)
            self._num_prompt[slot] = entry.num_prompt
            self._pooling.enter(entry)
            if self._sampler is not None:
                self._sampler.enter(slot, entry.sampling, entry.tokens, entry.num_prompt)
        for delta in plan.blocks:
            table = self._tables[delta.group][delta.slot]
            table[delta.first : delta.first + len(delta.ids)] = delta.ids

    def _to_device(self, array: NDArray[np.generic]) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor if self._device.type == "cpu" else tensor.to(self._device)

    def _inputs(
        self, plan: StepPlan, slots: Ints, starts: Ints, counts: Ints
    ) -> tuple[Tensor, Ints, Ints]:
        """Packed (ids on the device, positions, row of each token)."""
        given = np.array(plan.tokens, np.int64)
        if len(counts) == int(counts.sum()):
            ids, positions, owners = given, starts, np.arange(len(slots))
            places = ids
        else:
            owners = np.repeat(np.arange(len(slots)), counts)
            ends = np.cumsum(counts)
            positions = np.arange(ends[-1]) - np.repeat(ends - counts - starts, counts)
            ids = np.empty(ends[-1], np.int64)
            for row, end in enumerate(ends):
                count, start = int(counts[row]), int(starts[row])
                if count == 1:
                    ids[end - 1] = given[row]
                else:
                    ids[end - count : end] = self._ids[slots[row]][start : start + count]
            places = ids
        on_device = self._to_device(places)
        unknown = np.flatnonzero(ids == UNKNOWN)
        if len(unknown):
            on_device[self._to_device(unknown)] = self._last[
                self._to_device(slots[owners[unknown]])
            ]
        return on_device, positions, owners

    def _batch(
        self, slots: Ints, starts: Ints, counts: Ints, positions: Ints, owners: Ints
    ) -> AttnBatch:
        size = self._block_size
        lengths = starts + counts
        width = -(-int(lengths.max()) // size)
        query_start = np.zeros(len(slots) + 1, np.int32)
        np.cumsum(counts, out=query_start[1:])
        groups = []
        for table in self._tables:
            tables = table[slots, :width]
            mapping = tables[owners, positions // size].astype(np.int64) * size + positions % size
            groups.append(GroupTables(self._to_device(tables), self._to_device(mapping)))
        return AttnBatch(
            query_start=self._to_device(query_start),
            seq_lens=self._to_device(lengths.astype(np.int32)),
            groups=tuple(groups),
            query_lens_host=counts.tolist(),
            seq_lens_host=lengths.tolist(),
            adapters=self._adapter_rows(slots, owners),
        )

    def _adapter_rows(self, slots: Ints, owners: Ints) -> AdapterRows | None:
        of_row = self._adapters[slots]
        if of_row.max() < 0:
            return None
        of_token = of_row[owners]
        tokens = np.argsort(of_token, kind="stable")
        starts = np.searchsorted(of_token[tokens], np.arange(self._max_adapters + 1))
        adapted = tokens[starts[0] :]
        return AdapterRows(self._to_device(adapted), (starts - starts[0]).tolist())

    def _sample(self, rows: Tensor, slots: Ints, lengths: Ints, result: StepResult) -> None:
        logits = self._model.logits(rows)
        places = self._to_device(slots)
        if self._sampler is None:
            ids = torch.empty(len(slots), dtype=torch.int64, device=self._device)
            self._ranks.broadcast(ids)
            self._last[places] = ids
            return
        positions = (lengths - self._num_prompt[slots]).tolist()
        drawn = self._sampler.sample(logits, slots.tolist(), positions)
        # A bad row (-1) fails when the host sees it; until then its id must be one that exists.
        ids = drawn.ids.clamp(min=0)
        self._ranks.broadcast(ids)
        self._last[places] = ids
        result.tokens = [[token] if token >= 0 else [] for token in drawn.ids.tolist()]
        result.logprobs = {row: [found] for row, found in drawn.logprobs.items()}

    def _score_prompts(self, plan: StepPlan, hidden: Tensor, result: StepResult) -> None:
        """Logprobs of the prompt tokens that follow the computed positions, where asked for."""
        offset = 0
        for row, (slot, start, count) in enumerate(
            zip(plan.slots, plan.starts, plan.counts, strict=True)
        ):
            entry = self._entries[slot]
            assert entry is not None
            top = entry.sampling.prompt_logprobs
            following = entry.tokens[start + 1 : min(start + count + 1, entry.num_prompt)]
            if top is not None and following:
                found: list[TokenLogprobs] = []
                for first in range(0, len(following), LOGIT_ROWS):
                    ids = following[first : first + LOGIT_ROWS]
                    begin = offset + first
                    logits = self._model.logits(hidden[begin : begin + len(ids)])
                    if self._sampler is not None:
                        found += self._sampler.prompt_logprobs(logits, ids, top)
                result.prompt_logprobs[row] = found
            offset += count
