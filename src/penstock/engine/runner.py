"""The model runner: does plans on one torch device.

A request keeps one row (its slot) while it runs: its ids, its block tables and the last token
drawn stand there, and each step gathers what it needs from the rows of its plan.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from penstock.attention.base import AdapterRows, AttnBatch, Exchange, GroupTables
from penstock.core.plan import UNKNOWN, AdapterLoad, Entry, StepPlan, StepResult, TokenLogprobs
from penstock.engine.bitmask import on_device
from penstock.engine.constraints import Constraints
from penstock.engine.pooling import Pooling
from penstock.engine.rows import Ints, Rows, part_of, rows_of
from penstock.engine.sampler import Sampler
from penstock.errors import EngineError
from penstock.models.base import CausalLM
from penstock.parallel.context import divide
from penstock.parallel.ranks import ALONE, RankGroup

if TYPE_CHECKING:
    from penstock.kernels.cpu import _native

LOGIT_ROWS = 256
"""Most prompt positions whose logits are in memory at once, for prompt logprobs."""


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
        workers: _native.Pool | None = None,
        constraints: Constraints | None = None,
    ) -> None:
        """set_adapter: puts an adapter into one of the model's max_adapters slots. workers: those
        of the CPU kernels that compute the model, None where torch does. constraints: of the
        leader, which samples."""
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
        self._workers = workers
        self._lap_began = 0.0
        self._sampler: Sampler | None = None
        if ranks.leads:
            self._sampler = Sampler(model.vocab_size, max_num_seqs, device, workers)
        self._constraints = constraints
        self._pooling = Pooling()
        self._entries: list[Entry | None] = [None] * max_num_seqs
        self._ids: list[Ints] = [np.zeros(0, np.int64)] * max_num_seqs
        self._num_prompt = np.zeros(max_num_seqs, np.int64)
        self._last = torch.zeros(max_num_seqs, dtype=torch.int64, device=device)
        self._host_last = self._last.numpy() if device.type == "cpu" else None
        """the same memory: numpy gathers a few numbers several times faster"""
        self._scored: set[int] = set()
        """slots whose prompts want logprobs"""
        blocks = -(-max_model_len // block_size)
        self._tables = [np.zeros((max_num_seqs, blocks), np.int32) for _ in model.kv_groups]

    @property
    def num_groups(self) -> int:
        return len(self._tables)

    def run(self, plan: StepPlan) -> StepResult:
        """Do one plan. A failure becomes `StepResult.error`, never an exception."""
        self._lap_began = began = time.perf_counter()
        self._waited_s, busy_ns = 0.0, self._busy_ns
        try:
            with torch.inference_mode():
                result = self._run(plan)
        except Exception as error:
            failure = EngineError(f"A step failed: {type(error).__name__}: {error}")
            result = StepResult(plan.step, [], error=failure.to_dict())
        result.device_s = time.perf_counter() - began - self._waited_s
        if self._workers is not None:
            result.kernel_s = (self._busy_ns - busy_ns) * 1e-9
        return result

    @property
    def _busy_ns(self) -> int:
        return 0 if self._workers is None else self._workers.busy_ns

    def _lap_s(self) -> float:
        """Seconds since the last lap."""
        now = time.perf_counter()
        lap_s, self._lap_began = now - self._lap_began, now
        return lap_s

    def _run(self, plan: StepPlan) -> StepResult:
        self._take_in(plan)
        whole = rows_of(plan)
        parts = self._divide(whole)
        own = whole if parts is None else parts[self._ranks.part]
        ids = self._inputs(own)
        batch = self._batch(own)
        if parts is not None:
            batch.exchange = self._exchange(parts)
        result = StepResult(plan.step, [])
        entering = ids if self._ranks.stage.first else self._received(len(ids))
        positions = self._to_device(own.positions)
        result.prepare_s = self._lap_s() - self._waited_s
        hidden = self._model.forward(entering, positions, self._caches, batch)
        result.forward_s = self._lap_s()
        if not self._ranks.stage.last:
            self._ranks.send(hidden)
            return result
        if self._ranks.part == 0:
            self._score_prompts(own, hidden, result)
            result.embeddings = self._pooling.pool(own, hidden)
        if whole.samples.any():
            logits = self._logits(hidden, own)
            result.forward_s += self._lap_s()
            self._sample(logits, whole, result)
        result.sample_s = self._lap_s()
        return result

    def _divide(self, rows: Rows) -> list[Rows] | None:
        """What each context-parallel part computes; None: everything."""
        if self._ranks.parts == 1:
            return None
        whole = [self._all_wanted(slot) for slot in rows.slots]
        spans = divide(rows.starts.tolist(), rows.counts.tolist(), whole, self._ranks.parts)
        return None if spans is None else [part_of(rows, own) for own in spans]

    def _all_wanted(self, slot: int) -> bool:
        """Whether the leader needs the hidden states of all its prompt."""
        entry = self._entries[slot]
        assert entry is not None
        return entry.sampling.prompt_logprobs is not None or bool(entry.sampling.pooling)

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
            self._scored.discard(slot)
            if entry.sampling.prompt_logprobs is not None:
                self._scored.add(slot)
            self._pooling.enter(entry)
            if self._sampler is not None:
                self._sampler.enter(slot, entry.sampling, entry.tokens, entry.num_prompt)
            if self._constraints is not None:
                self._constraints.enter(slot, entry.sampling, entry.tokens, entry.num_prompt)
        for delta in plan.blocks:
            table = self._tables[delta.group][delta.slot]
            table[delta.first : delta.first + len(delta.ids)] = delta.ids

    def _to_device(self, array: NDArray[np.generic]) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor if self._device.type == "cpu" else tensor.to(self._device)

    def _inputs(self, rows: Rows) -> Tensor:
        """Packed ids on the device."""
        if rows.num_tokens == len(rows.slots):
            ids = rows.tokens
        else:
            ids = np.empty(rows.num_tokens, np.int64)
            for row, end in enumerate(np.cumsum(rows.counts)):
                count, start = int(rows.counts[row]), int(rows.starts[row])
                if count == 1:
                    ids[end - 1] = rows.tokens[row]
                else:
                    ids[end - count : end] = self._ids[rows.slots[row]][start : start + count]
        unknown = np.flatnonzero(ids == UNKNOWN)
        if not len(unknown):
            return self._to_device(ids)
        drawn = rows.slots[rows.owners[unknown]]
        if self._host_last is not None:
            ids = ids.copy()
            ids[unknown] = self._host_last[drawn]
            return self._to_device(ids)
        on_device = self._to_device(ids)
        on_device[self._to_device(unknown)] = self._last[self._to_device(drawn)]
        return on_device

    def _batch(self, rows: Rows) -> AttnBatch:
        lengths = rows.lengths
        width = -(-int(lengths.max()) // self._block_size)
        query_start = np.zeros(len(rows.slots) + 1, np.int32)
        np.cumsum(rows.counts, out=query_start[1:])
        groups = [
            GroupTables(
                self._to_device(table[rows.slots, :width]),
                self._to_device(self._places(table, rows)),
            )
            for table in self._tables
        ]
        return AttnBatch(
            query_start=self._to_device(query_start),
            seq_lens=self._to_device(lengths.astype(np.int32)),
            groups=tuple(groups),
            query_lens_host=rows.counts.tolist(),
            seq_lens_host=lengths.tolist(),
            adapters=self._adapter_rows(rows),
        )

    def _places(self, table: NDArray[np.int32], rows: Rows) -> Ints:
        """Where the K and V of each token go."""
        blocks = table[rows.slots[rows.owners], rows.positions // self._block_size]
        return blocks.astype(np.int64) * self._block_size + rows.positions % self._block_size

    def _exchange(self, parts: list[Rows]) -> Exchange:
        positions = np.concatenate([rows.positions for rows in parts])
        places = [
            np.concatenate([self._places(table, rows) for rows in parts]) for table in self._tables
        ]
        counts = [rows.num_tokens for rows in parts]
        return Exchange(
            partial(self._ranks.gather_rows, counts=counts),
            self._to_device(positions),
            tuple(self._to_device(each) for each in places),
        )

    def _adapter_rows(self, rows: Rows) -> AdapterRows | None:
        of_row = self._adapters[rows.slots]
        if of_row.max() < 0:
            return None
        of_token = of_row[rows.owners]
        tokens = np.argsort(of_token, kind="stable")
        starts = np.searchsorted(of_token[tokens], np.arange(self._max_adapters + 1))
        adapted = tokens[starts[0] :]
        return AdapterRows(self._to_device(adapted), (starts - starts[0]).tolist())

    def _logits(self, hidden: Tensor, own: Rows) -> Tensor | None:
        """Of the rows that want output; part 0 has the last token of each, others nothing."""
        if self._ranks.part:
            return None
        last = np.cumsum(own.counts)[own.samples] - 1
        rows = hidden if len(last) == len(hidden) else hidden[self._to_device(last)]
        return self._model.logits(rows)

    def _sample(self, logits: Tensor | None, whole: Rows, result: StepResult) -> None:
        """The rows of `whole` that want output."""
        slots = whole.slots[whole.samples]
        if self._sampler is None:
            ids = torch.empty(len(slots), dtype=torch.int64, device=self._device)
            self._ranks.broadcast(ids)
            self._keep(slots, ids)
            return
        assert logits is not None, "the leader is of part 0"
        positions = (whole.lengths[whole.samples] - self._num_prompt[slots]).tolist()
        masks = self._constraints.masks(slots.tolist()) if self._constraints else None
        allowed = on_device(masks.rows, masks.bits, self._device) if masks and masks.rows else None
        drawn = self._sampler.sample(logits, slots.tolist(), positions, allowed)
        # A bad row (-1) fails when the host sees it; until then its id must be one that exists.
        ids = drawn.ids.clamp(min=0)
        self._ranks.broadcast(ids)
        self._keep(slots, ids)
        tokens = drawn.ids.tolist()
        if masks is not None:
            result.failures = masks.failures(tokens)
        result.tokens = [
            [t] if t >= 0 and j not in result.failures else [] for j, t in enumerate(tokens)
        ]
        result.logprobs = {row: [found] for row, found in drawn.logprobs.items()}
        if self._constraints is not None:
            self._constraints.accept(slots.tolist(), tokens)

    def _keep(self, slots: Ints, ids: Tensor) -> None:
        """The drawn ids, for the plans that do not know them."""
        if self._host_last is not None:
            self._host_last[slots] = ids.numpy()
        else:
            self._last[self._to_device(slots)] = ids

    def _score_prompts(self, rows: Rows, hidden: Tensor, result: StepResult) -> None:
        """Logprobs of the prompt tokens that follow the computed positions, where asked for."""
        if self._scored.isdisjoint(rows.slots.tolist()):
            return
        offset = 0
        places = zip(rows.index, rows.slots, rows.starts, rows.counts, strict=True)
        for row, slot, start, count in (map(int, place) for place in places):
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
