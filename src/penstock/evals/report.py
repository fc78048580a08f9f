"""From scores to a report: figures, the gate, JSON."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.evals.divergence import Scores
from penstock.evals.storage import Storage

BUCKETS = (1, 16, 64, 256, 1024, 4096, 16384)
"""Where buckets of context length begin, in tokens seen."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Means over some scored tokens; KL in nats."""

    tokens: int
    kl_mean: float
    kl_median: float
    kl_p99: float
    agreement: float
    """share of tokens where both models prefer the same one"""
    regret: float
    """probability that the reference gives its favourite beyond the candidate's favourite"""
    reference_perplexity: float
    candidate_perplexity: float
    reference_bits_per_byte: float
    candidate_bits_per_byte: float


@dataclass(frozen=True, slots=True)
class Report:
    """All that `penstock eval` found. Everything is plain data or a dataclass of it."""

    setting: dict[str, Any]
    """command, machine, config and its hash, model, text, options: what a repetition needs"""
    total: Figures
    buckets: dict[str, Figures]
    """by tokens seen, as "16-63" """
    reference_storage: dict[str, Storage]
    candidate_storage: dict[str, Storage]
    max_kl: float | None = None
    min_agreement: float | None = None

    @property
    def failures(self) -> list[str]:
        """Bounds that do not hold, in words. A figure that is no number holds none."""
        found = []
        if self.max_kl is not None and not self.total.kl_mean <= self.max_kl:
            found.append(f"mean KL {self.total.kl_mean:.6g} is above --max-kl {self.max_kl:g}")
        if self.min_agreement is not None and not self.total.agreement >= self.min_agreement:
            found.append(
                f"top-1 agreement {self.total.agreement:.4%} is below --min-agreement "
                f"{self.min_agreement:g}"
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, which has no nan."""
        data = {
            **self.setting,
            "total": asdict(self.total),
            "buckets": {name: asdict(part) for name, part in self.buckets.items()},
            "reference_storage": _storage(self.reference_storage),
            "candidate_storage": _storage(self.candidate_storage),
            "gate": {
                "max_kl": self.max_kl,
                "min_agreement": self.min_agreement,
                "failures": self.failures,
            },
        }
        plain: dict[str, Any] = _without_nan(data)
        return plain


def total(parts: dict[str, Storage]) -> Storage:
    return sum(parts.values(), Storage(0, 0))


def _storage(parts: dict[str, Storage]) -> dict[str, Any]:
    return {
        name: {**asdict(part), "bits_per_weight": part.bits_per_weight}
        for name, part in {**parts, "total": total(parts)}.items()
    }


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def figures(scores: Scores, sizes: Callable[[int], int]) -> tuple[Figures, dict[str, Figures]]:
    """(over all scored tokens, by context length). sizes: bytes that a token id stands for.

    Perplexity is exp(mean nll). Bits per byte are the bits of all scored tokens over the bytes
    that these stand for: what can be compared between tokenizers.
    """
    ids, places = np.unique(scores.ids, return_inverse=True)
    lengths = np.array([sizes(int(token)) for token in ids])[places.reshape(-1)]
    buckets = {}
    for begin, end in zip(BUCKETS, (*BUCKETS[1:], math.inf), strict=True):
        where = (scores.seen >= begin) & (scores.seen < end)
        if where.any():
            name = f"{begin}+" if end == math.inf else f"{begin}-{end - 1}"
            buckets[name] = _figures(scores, lengths, where)
    return _figures(scores, lengths, np.ones_like(scores.same_top)), buckets


def _figures(scores: Scores, lengths: NDArray[np.int64], where: NDArray[np.bool_]) -> Figures:
    kl, size = scores.kl[where], int(lengths[where].sum())
    nll = (scores.reference_nll[where], scores.candidate_nll[where])
    median, p99 = np.quantile(kl, [0.5, 0.99])
    bits = [float(of.sum()) / math.log(2) / size if size else math.nan for of in nll]
    return Figures(
        tokens=len(kl),
        kl_mean=float(kl.mean()),
        kl_median=float(median),
        kl_p99=float(p99),
        agreement=float(scores.same_top[where].mean()),
        regret=float(scores.regret[where].mean()),
        reference_perplexity=float(np.exp(nll[0].mean())),
        candidate_perplexity=float(np.exp(nll[1].mean())),
        reference_bits_per_byte=bits[0],
        candidate_bits_per_byte=bits[1],
    )
