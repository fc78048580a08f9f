from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


async def until(happened: Callable[[], bool], within_s: float = 10.0) -> None:
    """Wait for something; AssertionError when it does not come."""
    end = time.monotonic() + within_s
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.02)
