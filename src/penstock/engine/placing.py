"""Which engine of a group gets a request: the pure router, fed with what the group knows."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Protocol

from penstock.core import prefix
from penstock.core.events import CacheChanged
from penstock.core.request import FinishReason, Submission
from penstock.core.router import Ask, EngineView, Router
from penstock.engine.client import ModelInfo

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Open:
    """A request between its submission and its end."""

    submission: Submission
    engine: int | None = None
    """None: it waits for an engine"""
    output: list[int] = field(default_factory=list)
    """all that its reader got"""
    hashes: list[bytes] = field(default_factory=list)
    """of the blocks that it was placed by"""
    ahead: int = 0
    """tokens that the engine computes before the first new one"""
    moved: bool = False
    crashes: int = 0
    """engines that ended under it since its last token"""
    aborted: FinishReason | None = None
    route: dict[str, object] | None = None
    """the receipt of the choice of its engine"""
    timer: asyncio.TimerHandle | None = None

    @property
    def id(self) -> str:
        return self.submission.id

    def continued(self) -> Submission:
        """What an engine has to do yet."""
        if not self.output:
            return self.submission
        # Logprobs of the prompt went out with the first tokens.
        sampling = replace(self.submission.sampling, prompt_logprobs=None)
        return replace(self.submission, sampling=sampling, output=list(self.output))

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Candidate(Protocol):
    """What placing asks of an engine."""

    index: int
    serving: bool
    open: dict[str, Open]
    tokens_ahead: int


class Placing:
    def __init__(self, info: ModelInfo, shares_prefixes: bool) -> None:
        self._router = Router()
        self._info = info
        self._shares = shares_prefixes

    def choose(self, request: Open, engines: Sequence[Candidate]) -> int | None:
        """Index of an engine, or None when none serves."""
        known = len(request.submission.prompt) + len(request.output)
        request.ahead = known
        if len(engines) == 1:
            return 0 if engines[0].serving else None
        if not any(engine.serving for engine in engines):
            return None
        request.hashes = self._hashes(request)
        ask = Ask(known, request.hashes, request.submission.session)
        now = time.monotonic()
        views = [
            EngineView(
                engine.index,
                now,
                len(engine.open),
                engine.tokens_ahead,
                self._info.max_num_seqs // len(engines),
                engine.serving,
            )
            for engine in engines
        ]
        decision = self._router.pick(ask, views, now)
        assert decision is not None
        self._router.index.sent(decision.engine, request.hashes)
        request.ahead = max(1, known - decision.hits * self._info.block_size)
        request.route = asdict(decision)
        log.debug("request %s: %s", request.id, decision)
        return decision.engine

    def _hashes(self, request: Open) -> list[bytes]:
        hashes: list[bytes] = []
        submission = request.submission
        if self._shares and submission.sampling.prompt_logprobs is None:
            root = prefix.root(self._info.cache_key, *submission.cache_keys)
            known = submission.prompt + request.output
            prefix.extend(hashes, root, known, self._info.block_size)
        return hashes

    def settled(self, engine: int, request: Open) -> None:
        """The engine has told what it stored of this request's prompt."""
        self._router.index.settled(engine, request.hashes)
        request.hashes = []

    def cache_changed(self, engine: int, event: CacheChanged) -> None:
        self._router.index.stored(engine, event.stored)
        self._router.index.removed(engine, event.removed)

    def forget(self, engine: int) -> None:
        """The engine lost its cache."""
        self._router.forget(engine)
