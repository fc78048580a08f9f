"""Waiting for what another task does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def until(look: Callable[[], T], timeout_s: float = 60.0) -> T:
    """What `look` returns once it is true. Raises TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while True:
            found = look()
            if found:
                return found
            await asyncio.sleep(0.003)
