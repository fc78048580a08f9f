"""Embeddings: a prompt's hidden states after the final norm, pooled to one vector.

`last` is the state of the last prompt token; `mean` the mean over all of them, added up in float64
over the chunks of the prompt, so that how it was cut does not show in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from penstock.core.plan import Entry, StepPlan


class Pooling:
    """The sums of prompts that are read just now, by slot."""

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}
        self._sums: dict[int, Tensor] = {}

    def enter(self, entry: Entry) -> None:
        """A request takes a slot; whatever the slot held before is forgotten."""
        self._entries.pop(entry.slot, None)
        self._sums.pop(entry.slot, None)
        if entry.sampling.pooling:
            self._entries[entry.slot] = entry

    def pool(self, plan: StepPlan, hidden: Tensor) -> dict[int, list[float]]:
        """Vectors of the prompts that end in this plan, by index among the rows that want output.

        hidden: [tokens, hidden_size] of the plan's rows, one after the other.
        """
        found: dict[int, list[float]] = {}
        if not self._entries:
            return found
        offset = sampled = 0
        for slot, count, samples in zip(plan.slots, plan.counts, plan.samples, strict=True):
            entry = self._entries.get(slot)
            if entry is not None:
                states = hidden[offset : offset + count]
                vector = (
                    self._add(entry, states) if entry.sampling.pooling == "mean" else states[-1]
                )
                if samples:
                    del self._entries[slot]
                    self._sums.pop(slot, None)
                    found[sampled] = vector.float().tolist()
            offset += count
            sampled += samples
        return found

    def _add(self, entry: Entry, states: Tensor) -> Tensor:
        """The mean, once all of the prompt was added."""
        total = states.sum(0, dtype=torch.float64)
        if entry.slot in self._sums:
            total += self._sums[entry.slot]
        self._sums[entry.slot] = total
        return total / entry.num_prompt
