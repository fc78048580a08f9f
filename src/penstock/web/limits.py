"""How much is let in at once: the bounded queue, the drain, the size of a body."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager

from starlette.requests import Request

from penstock.errors import BodyTooLargeError, DrainingError, InvalidFieldError, QueueFullError

MAX_RETRY_S = 60.0
"""Longest time after which a client is told to come again."""


class Door:
    """Counts the live choices (running and waiting) and refuses more than `limit`.

    Refusing at once keeps the wait of those inside bounded; the client is told when to return.
    """

    def __init__(self, limit: int, now: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self._now = now
        self._gap_s = 1.0
        """between one place that gets free and the next, of late"""
        self._freed_s: float | None = None
        self.live = 0
        self.refused = 0
        """choices turned away since start"""
        self.draining = False
        self._empty = asyncio.Event()
        self._empty.set()

    @contextmanager
    def admit(self, choices: int) -> Iterator[None]:
        """Hold `choices` places while inside. Raises QueueFullError, DrainingError, and
        InvalidFieldError for a request that could never fit."""
        self._check(choices)
        self.live += choices
        self._empty.clear()
        try:
            yield
        finally:
            self.live -= choices
            self._note(choices)
            if not self.live:
                self._empty.set()

    def _check(self, choices: int) -> None:
        if self.draining:
            raise DrainingError(
                "This server is shutting down.",
                cure="Send the request again: another replica, or the restarted one, takes it.",
                retry_after_s=5.0,
            )
        if choices > self.limit:
            raise InvalidFieldError(
                f"The request asks for {choices} choices (prompts times n); at most {self.limit} "
                "may be live at once.",
                cure="Split it into several requests, or raise --max-waiting.",
                param="n",
            )
        if self.live + choices > self.limit:
            self.refused += choices
            raise QueueFullError(
                f"The queue is full: {self.live} of {self.limit} choices are running or waiting.",
                cure="Retry after the time in Retry-After, or add replicas or --max-waiting.",
                retry_after_s=min(MAX_RETRY_S, self._gap_s * (self.live + choices - self.limit)),
            )

    def _note(self, choices: int) -> None:
        """So many places are free now. While the house is not full nothing is learned."""
        now, last = self._now(), self._freed_s
        full = self.live + choices >= self.limit // 2
        self._freed_s = now if full else None
        if last is not None and full:
            self._gap_s += 0.2 * ((now - last) / choices - self._gap_s)

    def drain(self) -> None:
        """From now on nobody is let in; those inside finish."""
        self.draining = True

    async def wait_empty(self, timeout_s: float) -> bool:
        """Wait until nobody is inside; False when that took longer than `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """The whole body. Raises BodyTooLargeError as soon as it is known to pass the limit."""
    return b"".join([chunk async for chunk in chunks(request, limit_bytes)])


async def chunks(
    request: Request, limit_bytes: int, flag: str = "--max-body-bytes"
) -> AsyncGenerator[bytes, None]:
    """The body as it comes. Raises BodyTooLargeError as `read_body`; `flag` sets the limit."""
    declared = request.headers.get("content-length", "")
    size = int(declared) if declared.isascii() and declared.isdigit() else 0
    if size <= limit_bytes:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit_bytes:
                break
            yield chunk
    if size > limit_bytes:
        raise BodyTooLargeError(
            f"The body is larger than {limit_bytes} bytes.",
            cure=f"Send less at once, or raise {flag}.",
        )
