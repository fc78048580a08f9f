"""Clients who leave at random moments, over HTTP, against a real server process."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import httpx
import pytest

from tests.server.conftest import KEY
from tests.server.process import Server, wait

AT_ONCE = 24
HEADERS = {"Authorization": f"Bearer {KEY}"}


@pytest.mark.parametrize(
    "count", [100, pytest.param(1000, marks=pytest.mark.slow)], ids=["short", "long"]
)
async def test_random_cancels_leak_no_block(server: Server, count: int) -> None:
    rng = random.Random(7)
    door = asyncio.Semaphore(AT_ONCE)
    ended = {"cancelled": 0, "finished": 0}
    limits = httpx.Limits(max_connections=AT_ONCE)
    async with httpx.AsyncClient(limits=limits, headers=HEADERS, timeout=60) as http:

        async def one() -> None:
            async with door:
                try:
                    async with asyncio.timeout(rng.expovariate(1 / 0.15)):
                        await _ask(http, server.url, _body(rng))
                    ended["finished"] += 1
                except TimeoutError:
                    ended["cancelled"] += 1

        await asyncio.gather(*(one() for _ in range(count)))
    assert min(ended.values()) > count / 50, f"a poor mix: {ended}"
    wait(lambda: _idle(server), 20.0, lambda: _books(server))
    assert server.metric("penstock:kv_blocks_leaked") == 0


def _body(rng: random.Random) -> dict[str, Any]:
    """Prompts that share prefixes, of all lengths up to several chunks."""
    return {
        "prompt": "Once upon a time there was a little fox. " * rng.randrange(1, 5)
        + str(rng.random()),
        "max_tokens": rng.choice([1, 10, 60, 200]),
        "ignore_eos": True,
        "n": rng.choice([1, 1, 1, 3]),
        "stream": rng.random() < 0.5,
    }


async def _ask(http: httpx.AsyncClient, url: str, body: dict[str, Any]) -> None:
    async with http.stream("POST", f"{url}/v1/completions", json=body) as response:
        assert response.status_code == 200, await response.aread()
        async for _ in response.aiter_bytes():
            pass


def _idle(server: Server) -> bool:
    """Nobody runs or waits, and every block is free or merely cached."""
    total = server.metric("penstock:kv_blocks")
    unused = server.metric("penstock:kv_blocks_free") + server.metric("penstock:kv_blocks_cached")
    live = server.metric("penstock:num_requests_running") + server.metric(
        "penstock:num_requests_waiting"
    )
    return live == 0 and total == unused


def _books(server: Server) -> str:
    text = httpx.get(f"{server.url}/metrics").text
    return "\n".join(line for line in text.splitlines() if line.startswith("penstock:kv_blocks"))
