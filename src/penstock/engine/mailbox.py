"""One mailbox a request, on the reader's event loop: deltas merge while the reader is slow.

So a slow client costs memory for one delta, not for a queue of them (vLLM's output collector has
the same idea). Shared by the in-process client and the one that talks to another process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from penstock import errors
from penstock.core.events import (
    Embedded,
    Event,
    Finished,
    PromptLogprobs,
    Queued,
    Scheduled,
    TokensOut,
)
from penstock.core.request import FinishReason, Submission
from penstock.engine.client import Delta, EngineStats
from penstock.errors import EngineDeadError, EngineStuckError, InvalidFieldError

Abort = Callable[[list[str], FinishReason], None]


class Mailbox:
    """An async iterator of deltas; the last one has a `finish`. Closing it early aborts."""

    def __init__(self, submission: Submission, abort: Abort, forget: Callable[[str], None]) -> None:
        self.id = submission.id
        self._abort = abort
        self._forget = forget
        self._delta: Delta | None = None
        self._cached_tokens = 0
        self._predicted_ttft_s: float | None = None
        self._prompt_logprobs: list[Any] | None = None
        self._wanted: asyncio.Future[None] | None = None
        self._began = False
        self._ended = False

    def __aiter__(self) -> AsyncIterator[Delta]:
        return self

    async def __anext__(self) -> Delta:
        if self._ended and self._delta is None:
            raise StopAsyncIteration
        try:
            while self._delta is None:
                self._wanted = asyncio.get_running_loop().create_future()
                await self._wanted
        except asyncio.CancelledError:
            self._close()
            raise
        delta, self._delta = self._delta, None
        if delta.error is not None and not self._began:
            raise errors.from_dict(delta.error)
        self._began = True
        return delta

    async def aclose(self) -> None:
        self._close()

    def _close(self) -> None:
        if not self._ended:
            self._ended = True
            self._forget(self.id)
            self._abort([self.id], FinishReason.ABORT)

    def put(self, event: Event) -> None:
        """Take in an event of this request."""
        if isinstance(event, TokensOut):
            delta = self._merge()
            delta.tokens += event.tokens
            if event.logprobs is not None:
                delta.logprobs = (delta.logprobs or []) + event.logprobs
        elif isinstance(event, Finished):
            delta = self._merge()
            delta.finish, delta.stop_id, delta.error = event.reason, event.stop_id, event.error
            self._ended = True
        elif isinstance(event, PromptLogprobs):
            self._note_prompt(event)
        elif isinstance(event, Embedded):
            self._merge().embedding = event.vector
        elif isinstance(event, Scheduled) and not event.resumed:
            self._cached_tokens = event.cached_tokens
        elif isinstance(event, Queued):
            self._predicted_ttft_s = event.predicted_ttft_s

    def fail(self, error: dict[str, Any]) -> None:
        delta = self._merge()
        delta.finish, delta.error = FinishReason.ERROR, error
        self._ended = True

    def _note_prompt(self, event: PromptLogprobs) -> None:
        """Chunks come in order; after a preemption some come again and replace themselves."""
        if self._prompt_logprobs is None:
            self._prompt_logprobs = []
        self._prompt_logprobs[event.first - 1 :] = event.logprobs

    def _merge(self) -> Delta:
        """The delta to add to; wakes the reader."""
        if self._delta is None:
            self._delta = Delta(
                cached_tokens=self._cached_tokens, predicted_ttft_s=self._predicted_ttft_s
            )
            if self._prompt_logprobs is not None:
                self._delta.prompt_logprobs, self._prompt_logprobs = self._prompt_logprobs, None
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(None)
        return self._delta


class Progress:
    """When an engine last finished a step, and what it said then."""

    def __init__(self) -> None:
        self.stats = EngineStats(at=0.0)
        self.restart()

    def restart(self) -> None:
        """Work arrives at an engine that had none."""
        self._at = time.monotonic()

    def note(self, stats: EngineStats) -> None:
        if stats.step != self.stats.step or stats.running == 0:
            self._at = time.monotonic()
        self.stats = stats

    def check(self, name: str, num_open: int, stuck_after_s: float) -> None:
        """Raise EngineStuckError when requests are open and no step was finished for long."""
        age = time.monotonic() - self._at
        if num_open and age > stuck_after_s:
            phase = "running a step" if self.stats.running else "taking in requests"
            raise EngineStuckError(
                f"{name} made no progress for {age:.1f} s with {num_open} requests "
                f"open; it was last seen {phase} (step {self.stats.step}).",
                cure="Look at the engine's log; restart the server if it does not recover.",
            )


class Mailboxes:
    """All requests that are open on this side."""

    def __init__(self, abort: Abort) -> None:
        self._abort = abort
        self._open: dict[str, Mailbox] = {}
        self._sinks: list[Callable[[list[Event], EngineStats], None]] = []
        self.dead: dict[str, Any] | None = None
        """the error that ends all requests, once nobody serves"""
        self.progress = Progress()

    def open(self, submissions: list[Submission]) -> list[Mailbox]:
        """Raises InvalidFieldError when an id is in use, EngineDeadError when nobody serves."""
        if self.dead is not None:
            raise errors.from_dict(self.dead)
        for submission in submissions:
            if submission.id in self._open:
                raise InvalidFieldError(
                    f"A request with id {submission.id!r} is being served.",
                    cure="Give each request an id of its own.",
                    param="request_id",
                )
        if not self._open:
            self.progress.restart()
        boxes = [Mailbox(s, self._abort, self._forget) for s in submissions]
        self._open.update((box.id, box) for box in boxes)
        return boxes

    def _forget(self, request_id: str) -> None:
        self._open.pop(request_id, None)

    def subscribe(self, sink: Callable[[list[Event], EngineStats], None]) -> None:
        self._sinks.append(sink)

    def deliver(self, events: list[Event], stats: EngineStats) -> None:
        """What the engine published for one step."""
        self.progress.note(stats)
        for event in events:
            box = self._open.get(event.id)
            if box is not None:
                box.put(event)
                if isinstance(event, Finished):
                    del self._open[event.id]
        for sink in self._sinks:
            sink(events, stats)

    def bury(self, error: EngineDeadError) -> None:
        """The engine is gone: every open request ends with this error, and so do later ones."""
        self.dead = error.to_dict()
        for box in self._open.values():
            box.fail(self.dead)
        self._open.clear()

    def check_health(self, stuck_after_s: float) -> list[str]:
        """See EngineClient.check_health."""
        if self.dead is not None:
            raise errors.from_dict(self.dead)
        self.progress.check("The engine", len(self._open), stuck_after_s)
        return []
