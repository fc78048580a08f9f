"""The router: which engine gets a request. Filters leave candidates, scorers rate them in [0, 1],
a picker takes one, and the receipt tells why (the shape of llm-d's scheduler plug-ins).

    prefix    share of the prompt's blocks that the engine holds, or was just sent
    load      few open requests and few prompt tokens to compute, relative to the least loaded
    session   the engine that had the session's last request; a hint

An engine over its share of the load by more than a factor and some slack is skipped for this one
request (consistent hashing with bounded loads, Mirrokni et al. 2018), so that no hot prefix floods
an engine and no hot engine turns affinity off for the others. What was sent counts at once, before
the engine reports it. Ties go to whoever got least of late, then round from a seeded start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from penstock.core.affinity import PrefixIndex, Sessions

TOKENS_PER_REQUEST = 256
"""Prompt tokens still to compute that weigh as much as one open request."""
HALF_LIFE_S = 30.0
"""Of what the tie-break remembers."""


@dataclass(frozen=True, slots=True)
class EngineView:
    """What is known of an engine at a moment."""

    index: int
    """its bit in the prefix index"""
    at: float
    """when this was true; what was sent later is added to it"""
    requests: int = 0
    """open: waiting and running"""
    tokens: int = 0
    """prompt tokens that they still have to compute"""
    max_num_seqs: int = 64
    accepting: bool = True


@dataclass(frozen=True, slots=True)
class Ask:
    """What the router is told of a request."""

    num_tokens: int
    """known tokens"""
    hashes: Sequence[bytes] = ()
    """of their full blocks (`core.prefix`); empty when nothing is shared"""
    session: str = ""


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each scorer counts."""

    prefix: float = 2.0
    load: float = 1.0
    session: float = 0.25


@dataclass(slots=True)
class Decision:
    """An engine, and the receipt. Lists are parallel to `candidates`."""

    engine: int
    candidates: list[int]
    scores: dict[str, list[float]]
    """by scorer, each in [0, 1]"""
    totals: list[float]
    reason: str
    hits: int = 0
    """blocks that the engine is expected to hold"""


@dataclass(slots=True)
class _Book:
    """What this router sent to one engine."""

    sent: deque[tuple[float, float]] = field(default_factory=deque)
    """(when, load) that views may not contain yet"""
    recent: float = 0.0
    """load sent, decaying"""
    recent_at: float = 0.0

    def pending(self, at: float) -> float:
        """Load that was sent after a view's moment."""
        while self.sent and self.sent[0][0] < at:
            self.sent.popleft()
        return sum(load for _, load in self.sent)

    def recency(self, now: float) -> float:
        return self.recent * float(0.5 ** ((now - self.recent_at) / HALF_LIFE_S))

    def add(self, now: float, load: float) -> None:
        self.sent.append((now, load))
        self.recent, self.recent_at = self.recency(now) + load, now


class Router:
    """Decides; the caller sends. Equal calls on equal seeds give equal decisions."""

    def __init__(
        self,
        index: PrefixIndex | None = None,
        weights: Weights | None = None,
        seed: int = 0,
        fair_factor: float = 1.25,
    ) -> None:
        """fair_factor: load relative to the mean above which an engine is skipped."""
        self.index = index or PrefixIndex()
        self.sessions = Sessions()
        self._weights = weights or Weights()
        self._fair_factor = fair_factor
        self._turn = seed
        self._books: dict[int, _Book] = {}

    def pick(self, ask: Ask, views: Sequence[EngineView], now: float) -> Decision | None:
        """The engine for a request, counted as sent; None when nobody accepts."""
        alive = [view for view in views if view.accepting]
        if not alive:
            return None
        loads = [self._load(view) for view in alive]
        kept = self._under_share(alive, loads)
        views, loads = [alive[i] for i in kept], [loads[i] for i in kept]
        depths = self.index.depths(ask.hashes, sum(1 << view.index for view in views))
        scores = {
            "prefix": _prefix_scores(ask, views, depths),
            "load": _load_scores(loads),
            "session": self._session_scores(ask, views),
        }
        totals = self._totals(scores)
        place, reason = self._best(views, totals, now)
        if len(kept) < len(alive):
            reason += f", {len(alive) - len(kept)} over their share"
        engine = views[place].index
        hits = depths.get(engine, 0)
        self._count(ask, engine, hits, now)
        return Decision(engine, [v.index for v in views], scores, totals, reason, hits)

    def forget(self, engine: int) -> None:
        """The engine lost its cache and its requests (it was restarted)."""
        self.index.clear(engine)
        self.sessions.drop(engine)
        self._books.pop(engine, None)

    def _load(self, view: EngineView) -> float:
        book = self._books.get(view.index)
        pending = book.pending(view.at) if book and book.sent else 0.0
        return view.requests + view.tokens / TOKENS_PER_REQUEST + pending

    def _under_share(self, views: Sequence[EngineView], loads: list[float]) -> list[int]:
        """Places of the engines that may get more. The least loaded one always may."""
        fair = self._fair_factor * sum(loads) / len(loads)
        return [
            i for i, load in enumerate(loads) if load <= fair + max(2.0, views[i].max_num_seqs / 8)
        ]

    def _session_scores(self, ask: Ask, views: Sequence[EngineView]) -> list[float]:
        last = self.sessions.get(ask.session) if ask.session else None
        return [1.0 if view.index == last else 0.0 for view in views]

    def _totals(self, scores: dict[str, list[float]]) -> list[float]:
        w = self._weights
        rows = zip(scores["prefix"], scores["load"], scores["session"], strict=True)
        return [w.prefix * p + w.load * load + w.session * s for p, load, s in rows]

    def _best(
        self, views: Sequence[EngineView], totals: list[float], now: float
    ) -> tuple[int, str]:
        """(place of the pick, why)."""
        top = max(totals)
        tied = [i for i, total in enumerate(totals) if total == top]
        if len(tied) == 1:
            return tied[0], "best score"
        books = self._books
        recency = [
            books[index].recency(now) if (index := views[i].index) in books else 0.0 for i in tied
        ]
        least = min(recency)
        tied = [i for i, recent in zip(tied, recency, strict=True) if recent == least]
        self._turn += 1
        return tied[self._turn % len(tied)], "tie"

    def _count(self, ask: Ask, engine: int, hits: int, now: float) -> None:
        if ask.session:
            self.sessions.put(ask.session, engine)
        new = ask.num_tokens * (1 - hits / len(ask.hashes)) if ask.hashes else ask.num_tokens
        book = self._books.get(engine)
        if book is None:
            book = self._books[engine] = _Book(recent_at=now)
        book.add(now, 1 + new / TOKENS_PER_REQUEST)


def _prefix_scores(ask: Ask, views: Sequence[EngineView], depths: dict[int, int]) -> list[float]:
    if not depths:
        return [0.0] * len(views)
    count = len(ask.hashes)
    return [depths.get(view.index, 0) / count for view in views]


def _load_scores(loads: list[float]) -> list[float]:
    """1 for the least loaded; one request more matters when there are few."""
    least = 1 + min(loads)
    return [least / (1 + load) for load in loads]
