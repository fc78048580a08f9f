"""Raw logprobs: log-softmax of the model's own logits, before bias, masks, penalties, temperature.

Ranks follow the sampler's order (greater first, then lower id), so that the greedy token has rank
1 and the token of rank r <= top is top_ids[r - 1].
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from penstock.core.plan import TokenLogprobs
from penstock.engine.draw import top_ids


@dataclass(slots=True)
class Logprobs:
    """Tensors on the device until `records` is called, so that sampling need not wait for it."""

    ids: Tensor
    """int64 [R]: the chosen tokens"""
    logprobs: Tensor
    """float32 [R]"""
    ranks: Tensor
    """int64 [R]"""
    top_ids: Tensor
    """int64 [R, top]"""
    top_logprobs: Tensor
    """float32 [R, top]"""

    def records(self, tops: Iterable[int]) -> list[TokenLogprobs]:
        """One record a row, with the `tops[j]` best alternatives of row j."""
        ids, logprobs, ranks = self.ids.tolist(), self.logprobs.tolist(), self.ranks.tolist()
        best, values = self.top_ids.tolist(), self.top_logprobs.tolist()
        return [
            TokenLogprobs(ids[j], logprobs[j], ranks[j], best[j][:top], values[j][:top])
            for j, top in enumerate(tops)
        ]


def logprobs_of(logits: Tensor, ids: Tensor, top: int, chunk: int) -> Logprobs:
    """Logprobs and ranks of `ids` int64 [R] under raw logits float32 [R, V], and the best `top`.

    `chunk` rows are worked on at a time, to bound the memory.
    """
    top = min(top, logits.shape[1])
    slices = [slice(first, first + chunk) for first in range(0, len(ids), chunk)]
    parts = [_part(logits[rows], ids[rows, None], top) for rows in slices]
    return Logprobs(ids, *(torch.cat(column) for column in zip(*parts, strict=True)))


def _part(logits: Tensor, ids: Tensor, top: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    logprobs = torch.log_softmax(logits, dim=1)
    best = top_ids(logits, top)[0] if top > 0 else ids[:, :0]
    chosen = logits.gather(1, ids)
    greater = torch.count_nonzero(logits > chosen, dim=1)
    places = torch.arange(logits.shape[1], device=logits.device)
    before = torch.count_nonzero((logits == chosen) & (places < ids), dim=1)
    ranks = greater + before + 1
    return logprobs.gather(1, ids)[:, 0], ranks, best, logprobs.gather(1, best)
