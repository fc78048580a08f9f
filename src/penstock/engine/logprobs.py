"""Raw logprobs: log-softmax of the model's own logits, before bias, masks, penalties, temperature.

Ranks follow the sampler's order (greater first, then lower id), so that the greedy token has rank
1 and the token of rank r <= top is top_ids[r - 1].
"""

from __future__ import annotations

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

    def records(self, tops: list[int]) -> list[TokenLogprobs]:
        """One record a row, with the `tops[j]` best alternatives of row j."""
        ids, logprobs, ranks = self.ids.tolist(), self.logprobs.tolist(), self.ranks.tolist()
        best, values = self.top_ids.tolist(), self.top_logprobs.tolist()
        return [
            TokenLogprobs(ids[j], logprobs[j], ranks[j], best[j][:top], values[j][:top])
            for j, top in enumerate(tops)
        ]


def logprobs_of(logits: Tensor, ids: Tensor, top: int) -> Logprobs:
    """Logprobs and ranks of `ids` int64 [R] under raw logits float32 [R, V], and the best `top`."""
    logprobs = torch.log_softmax(logits, dim=1)
    top = min(top, logits.shape[1])
    if top > 0:
        best, _ = top_ids(logits, top)
    else:
        best = ids.new_zeros(len(ids), 0)
    chosen = logits.gather(1, ids[:, None])
    places = torch.arange(logits.shape[1], device=logits.device)
    better = (logits > chosen) | ((logits == chosen) & (places < ids[:, None]))
    return Logprobs(
        ids=ids,
        logprobs=logprobs.gather(1, ids[:, None])[:, 0],
        ranks=better.sum(1) + 1,
        top_ids=best,
        top_logprobs=logprobs.gather(1, best),
    )
