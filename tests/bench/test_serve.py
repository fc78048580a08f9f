from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from penstock.bench.serve import Report, ServeOptions, measure
from penstock.errors import ConfigError
from tests.bench.fake_server import Body, FakeServer, Reply, tokens


def serve(path: str, body: Body) -> Reply:
    return 200, tokens(body, 0.001, cached=2)


async def run(server: FakeServer, **options: Any) -> Report:
    sizes = {"input_len": 8, "output_len": 3, "concurrency": (1, 3), "num_requests": 6, "seed": 1}
    return await measure(ServeOptions(**({"url": server.url} | sizes | options)))


async def test_levels_keep_their_concurrency_and_count_every_token() -> None:
    active = most = 0

    async def watched(body: Body) -> Any:
        nonlocal active, most
        active += 1
        most = max(most, active)
        async for piece in tokens(body, 0.002, cached=2):
            yield piece
        active -= 1

    async with FakeServer(lambda path, body: (200, watched(body))) as server:
        report = await run(server)
    assert most == 3
    assert [(lv.concurrency, lv.requests, lv.completed) for lv in report.levels] == [
        (1, 6, 6),
        (3, 6, 6),
    ]
    for level in report.levels:
        assert (level.input_tokens, level.output_tokens, level.cached_tokens) == (48, 18, 12)
        assert (level.ttft_s.count, level.tpot_s.count, level.itl_s.count) == (6, 6, 12)
        assert level.ttft_s.p50 <= level.e2e_s.p50 <= level.duration_s
        assert level.output_tokens_per_s == pytest.approx(18 / level.duration_s)
        assert level.errors == {}
    assert report.notes == []


async def test_prompts_are_exact_new_in_each_level_and_share_what_they_should() -> None:
    async with FakeServer(serve) as server:
        server.pages["/v1/models"] = {"data": [{"id": "m", "vocab_size": 256}]}
        await run(server, shared_prefix_len=4)
    probe, *measured = [body["prompt"] for body in server.bodies]
    assert {len(prompt) for prompt in measured} == {8}
    assert max(max(prompt) for prompt in measured) < 256
    prefixes = [tuple(prompt[:4]) for prompt in measured]
    assert len(set(prefixes[:6])) == len(set(prefixes[6:])) == 1
    assert len({*prefixes, tuple(probe[:4])}) == 3
    assert len({tuple(prompt) for prompt in measured}) == 12
    assert server.bodies[1]["ignore_eos"] is True
    assert server.bodies[1]["model"] == "m"


async def test_without_a_seed_no_two_runs_are_alike() -> None:
    async with FakeServer(serve) as server:
        first = await run(server, seed=None, concurrency=(1,), num_requests=1)
        again = await run(server, seed=first.target.prompts.seed, concurrency=(1,), num_requests=1)
        await run(server, seed=None, concurrency=(1,), num_requests=1)
    prompts = [body["prompt"] for body in server.bodies]
    assert prompts[0:2] == prompts[2:4]
    assert prompts[4:6] != prompts[2:4]
    assert again.to_dict()["options"]["seed"] == first.target.prompts.seed


async def test_failures_are_counted_by_cause_and_in_no_other_figure() -> None:
    count = 0

    def sometimes(path: str, body: Body) -> Reply:
        nonlocal count
        count += 1
        if count % 3 == 0:
            return 429, {"error": {"code": "queue_full", "message": "full"}}
        return 200, tokens(body)

    async with FakeServer(sometimes) as server:
        report = await run(server, concurrency=(1,))
    (level,) = report.levels
    assert (level.requests, level.completed) == (6, 4)
    assert level.errors == {"HTTP 429 queue_full": 2}
    assert level.output_tokens == 12


async def test_outputs_that_end_early_are_noted() -> None:
    async with FakeServer(lambda path, body: serve(path, body | {"max_tokens": 2})) as server:
        report = await run(server, concurrency=(1,))
    assert report.notes == ["concurrency 1: 6 of 6 outputs ended before --output-len"]


async def test_the_report_is_json_without_the_key() -> None:
    async with FakeServer(serve) as server:
        server.pages["/version"] = {"version": "9.9"}
        report = await run(server, api_key="secret-key")
    text = json.dumps(report.to_dict(), allow_nan=False)
    assert "secret-key" not in text
    data = json.loads(text)
    assert data["server"] == {"url": server.url, "model": "fake", "version": "9.9"}
    assert data["levels"][1]["ttft_s"]["p99"] > 0
    assert data["machine"]["cores"] >= 1


async def test_a_level_where_all_fail_is_still_json() -> None:
    answers = iter([200])

    def only_the_probe(path: str, body: Body) -> Reply:
        return (200, tokens(body)) if next(answers, 0) else (500, {"error": {"code": "x"}})

    async with FakeServer(only_the_probe) as server:
        report = await run(server, concurrency=(1,))
    (level,) = report.to_dict()["levels"]
    assert level["errors"] == {"HTTP 500 x": 6}
    assert level["ttft_s"]["p50"] is None
    assert level["output_tokens_per_s"] == 0
    json.dumps(level, allow_nan=False)


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"input_len": 0}, "--input-len"),
        ({"output_len": 0}, "--output-len"),
        ({"concurrency": ()}, "--concurrency"),
        ({"concurrency": (1, 0)}, "--concurrency"),
        ({"num_requests": 15}, "--num-requests"),
        ({"shared_prefix_len": 512}, "--shared-prefix-len"),
        ({"vocab_size": 1}, "--vocab-size"),
        ({"timeout_s": 0.0}, "--timeout-s"),
        ({"endpoint": "embeddings"}, "--endpoint"),
    ],
)
def test_options_out_of_range_are_named(change: dict[str, Any], flag: str) -> None:
    with pytest.raises(ConfigError, match=flag):
        asyncio.run(measure(ServeOptions(url="http://x", **change)))


async def test_a_server_that_is_not_there_is_told() -> None:
    with pytest.raises(ConfigError, match="No server answers"):
        await measure(ServeOptions(url="http://127.0.0.1:9"))
