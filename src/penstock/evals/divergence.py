"""How far one model's next-token distributions lie from another's, position by position."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from penstock.evals.reader import Reader
from penstock.evals.windows import Window

LOGITS = 1 << 22
"""Most logits of one model in memory at once: distributions are never kept."""


@dataclass(frozen=True, slots=True)
class Scores:
    """One entry for each scored token."""

    seen: NDArray[np.int64]
    """tokens of its window that stand before it"""
    ids: NDArray[np.int64]
    kl: NDArray[np.float64]
    """KL(reference || candidate), nats"""
    reference_nll: NDArray[np.float64]
    """-log probability, nats"""
    candidate_nll: NDArray[np.float64]
    same_top: NDArray[np.bool_]
    """whether both prefer the same token"""
    regret: NDArray[np.float64]
    """reference's probability of its own favourite less that of the candidate's favourite: near 0
    where they differ over a tie"""


def compare(
    reference: Reader,
    candidate: Reader,
    windows: Iterable[Window],
    progress: Callable[[int], None] = lambda scored: None,
) -> Scores:
    """Read the windows with both models, side by side. progress: is told the tokens scored."""
    rows = max(1, LOGITS // reference.model.vocab_size)
    parts: list[tuple[Tensor, ...]] = []
    with torch.inference_mode():
        for window in windows:
            predicting = slice(window.first - 1, len(window.ids) - 1)
            columns = (
                torch.arange(window.first, len(window.ids)),
                torch.tensor(window.ids[window.first :]),
                reference.hidden(window.ids)[predicting],
                candidate.hidden(window.ids)[predicting],
            )
            pieces = zip(*(torch.split(column, rows) for column in columns), strict=True)
            for where, targets, a, b in pieces:
                found = divergence(
                    reference.model.logits(a), candidate.model.logits(b), targets.to(a.device)
                )
                parts.append((where, targets, *(column.cpu() for column in found)))
            progress(len(window.ids) - window.first)
    return Scores(*(torch.cat(column).numpy() for column in zip(*parts, strict=True)))


def divergence(
    reference: Tensor, candidate: Tensor, ids: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Logits [rows, vocab_size] of both, ids [rows] of the tokens that came -> the columns of
    `Scores` from `kl` on, float64.

    A candidate that is not a number has a KL of nan.
    """
    p, q = reference.double().log_softmax(-1), candidate.double().log_softmax(-1)
    kl = (p.exp() * (p - q)).sum(-1)
    nll = [-of.gather(1, ids[:, None])[:, 0] for of in (p, q)]
    tops = p.argmax(-1, keepdim=True), q.argmax(-1, keepdim=True)
    mine, other = (p.gather(1, top)[:, 0].exp() for top in tops)
    return kl, nll[0], nll[1], (tops[0] == tops[1])[:, 0], mine - other
