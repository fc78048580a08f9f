from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from penstock.bench.http import HttpClient
from penstock.bench.load import Load, prompt_ids
from penstock.bench.prompts import Prompts
from penstock.bench.target import Form, Target
from penstock.report.records import RequestRecord
from penstock.workload.prefixes import Segment
from penstock.workload.sessions import TimedRequest
from tests.bench.fake_server import Body, FakeServer, Reply, event, tokens

TARGET = Target("fake", "", Prompts(0, 4, 0, 1000), Form("completions", True, True, True))


def request(
    number: int, at_s: float, parents: tuple[int, ...] = (), output: int = 3, **prompt: int
) -> TimedRequest:
    own = (Segment(1000 + number, 5),)
    text = (Segment(prompt["answer"], output), *own) if prompt else own
    return TimedRequest(
        number, at_s, number, len(parents), parents, 0.05 if parents else 0.0, text,
        sum(s.tokens for s in text), output, 2000 + number, "agent", "here",
    )  # fmt: skip


async def run(
    requests: list[TimedRequest], complete: Callable[[str, Body], Reply]
) -> tuple[dict[str, RequestRecord], list[Body]]:
    async with FakeServer(complete) as server:
        client = HttpClient(server.url, timeout_s=20)
        records = await Load(client, TARGET, requests, lambda *_: None).run()
        await client.close()
    assert len(records) == len({record.id for record in records})
    return {record.id: record for record in records}, server.bodies


async def test_a_slow_server_does_not_delay_the_next_request() -> None:
    """Open loop: all are in flight at once; a closed loop would send the second after the first."""
    waiting = 0
    free = asyncio.Event()

    async def held(body: Body) -> Any:
        nonlocal waiting
        waiting += 1
        if waiting == 5:
            free.set()
        await free.wait()
        async for piece in tokens(body):
            yield piece

    records, _ = await run(
        [request(i, 0.01 * i) for i in range(5)], lambda path, body: (200, held(body))
    )
    assert all(record.answered for record in records.values())
    first = records["0"]
    assert first.ttft_s is not None
    assert first.ttft_s >= 0.035, "it waited for the last one"
    assert first.output_tokens == first.wanted_tokens == 3
    assert first.slo_class == "agent"


async def test_latency_counts_from_when_it_was_due() -> None:
    records, _ = await run([request(0, 0.05)], lambda path, body: (200, tokens(body, 0.01)))
    record = records["0"]
    assert record.due_s == 0.05
    assert record.sent_s is not None
    assert record.sent_s >= 0.05
    assert record.ttft_s == pytest.approx((record.first_s or 0) - 0.05)
    assert len(record.gaps_s) == 2


async def test_turns_wait_and_repeat_what_the_server_wrote() -> None:
    requests = [request(0, 0.0), request(1, 0.0), request(2, 0.0, (0, 1), answer=2000)]
    records, bodies = await run(requests, lambda path, body: (200, tokens(body, 0.01)))
    ends = max(records["0"].end_s or 0, records["1"].end_s or 0)
    assert records["2"].due_s >= ends + 0.05
    assert records["2"].turn == 2
    assert bodies[-1]["prompt"][:3] == [0, 1, 2], "ids of the fake server's answer"
    assert bodies[-1]["prompt"][3:] == prompt_ids((Segment(1002, 5),), {}, 1000)


async def test_failures_are_records_too() -> None:
    async def torn(body: Body) -> Any:
        yield event({"choices": [{"index": 0, "text": "x", "token_ids": [1]}]})

    def complete(path: str, body: Body) -> Reply:
        if body["prompt"] == prompt_ids((Segment(1000, 5),), {}, 1000):
            return 429, {"error": {"message": "full", "code": "queue_full"}}
        return 200, torn(body)

    requests = [request(0, 0.0), request(1, 0.0), request(2, 0.0, (0,))]
    records, _ = await run(requests, complete)
    assert records["0"].error == "HTTP 429 queue_full"
    assert records["1"].error == "stream ended early"
    assert all(not record.answered for record in records.values())
    assert records["0"].end_s is not None
