"""Keys with names: limits, headers, salts, shares and metrics, over the application."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from penstock.core import prefix
from tests.server.stage import TEXT, Stage, error_of, stage

KEYS = """
[keys.ann]
key = "ann's secret"
requests_per_minute = 3
tokens_per_minute = 100000
weight = 2.5
[keys.bob]
key = "bob's secret"
[keys.cy]
key = "cy's secret"
share_cache = true
"""
PATH = "/v1/completions"


@pytest.fixture
async def s(tmp_path: Path) -> AsyncIterator[Stage]:
    (tmp_path / "keys.toml").write_text(KEYS)
    files = {"api_keys_file": str(tmp_path / "keys.toml"), "data_dir": str(tmp_path / "data")}
    async with stage(api_key=("plain",), **files) as made:
        yield made
        await made.service.close()


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {name}'s secret"}


async def test_limits_are_a_keys_own(s: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for left in (2, 1, 0):
        reply = await s.post(PATH, TEXT, **bearer("ann"))
        assert reply.headers["x-ratelimit-remaining-requests"] == str(left)
        assert reply.headers["x-ratelimit-limit-requests"] == "3"
    refused = await s.post(PATH, TEXT, **bearer("ann"))
    assert (refused.status_code, error_of(refused)["code"]) == (429, "rate_limit_exceeded")
    assert error_of(refused)["type"] == "rate_limit_error"
    assert 15 <= int(refused.headers["retry-after"]) <= 20
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    free = await s.post(PATH, TEXT, **bearer("bob"))
    assert free.status_code == 200
    assert not [name for name in free.headers if name.startswith("x-ratelimit")]
    metrics = (await s.http.get("/metrics")).text
    assert 'key="ann"' in metrics
    assert "secret" not in metrics + caplog.text


async def test_what_reaches_the_engine_names_the_key(s: Stage) -> None:
    for name in ("ann", "bob"):
        await s.post(PATH, TEXT, **bearer(name))
    await s.post(PATH, TEXT, authorization="Bearer plain")
    asked = [(sub.tenant, sub.weight) for sub in s.client.submissions]
    assert asked == [("ann", 2.5), ("bob", 1.0), ("", 1.0)]


async def test_no_prefix_is_shared_between_keys_and_salts(s: Stage) -> None:
    """Equal prompts of other keys, and of one key under other salts, have other block names."""
    asks: list[tuple[dict[str, str], dict[str, Any]]] = [
        (bearer("ann"), {}),
        (bearer("ann"), {"cache_salt": "x"}),
        (bearer("bob"), {}),
        (bearer("bob"), {"cache_salt": "x"}),
        (bearer("cy"), {}),
        (bearer("cy"), {"cache_salt": "x"}),
        (bearer("cy"), {"cache_salt": "ann"}),
        ({"authorization": "Bearer plain"}, {"cache_salt": "bob\0"}),
    ]
    for headers, fields in asks:
        assert (await s.post(PATH, TEXT | fields, **headers)).status_code == 200
    roots = [prefix.root("model", sub.cache_salt) for sub in s.client.submissions]
    assert len(set(roots)) == len(roots)
    await s.post(PATH, TEXT, authorization="Bearer plain")
    assert s.client.submissions[-1].cache_salt == s.client.submissions[4].cache_salt, "shared"
    forged = await s.post(PATH, TEXT | {"cache_salt": "\0ann\0"}, **bearer("cy"))
    assert (forged.status_code, error_of(forged)["param"]) == (400, "cache_salt")


async def test_what_a_key_keeps_no_other_sees(s: Stage) -> None:
    made = (await s.post("/v1/responses", {"input": "Hi"}, **bearer("ann"))).json()
    path = f"/v1/responses/{made['id']}"
    assert (await s.http.get(path, headers=bearer("ann"))).status_code == 200
    assert (await s.http.get(path, headers=bearer("bob"))).status_code == 404
    going_on = {"input": "And?", "previous_response_id": made["id"]}
    assert (await s.post("/v1/responses", going_on, **bearer("bob"))).status_code == 404
