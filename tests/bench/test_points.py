from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from penstock.bench.points import Bench, RunOptions, exit_code
from penstock.errors import ConfigError
from penstock.report.run import summarise
from penstock.workload.archetypes import PRESETS
from penstock.workload.definition import Availability, Clause
from penstock.workload.sessions import TimedRequest
from tests.bench.fake_server import Body, FakeServer, Reply, tokens
from tests.bench.test_load import request
from tests.report.test_run import run

BASE = RunOptions("w.toml", "", duration_s=0.4, warm_up_s=0.0, cool_down_s=0.0, most_requests=4)


async def measure(
    options: RunOptions, requests: list[TimedRequest], limit_s: float = 5.0, most: int = 100
) -> tuple[Bench, int]:
    """A server that answers at once, and at most `most` requests at a time in good time."""
    open_now = peak = 0

    async def answer(body: Body) -> Any:
        nonlocal open_now, peak
        open_now += 1
        peak = max(peak, open_now)
        crowded = open_now > most
        async for piece in tokens(body, 0.3 if crowded else 0.002):
            yield piece
        open_now -= 1

    def complete(path: str, body: Body) -> Reply:
        return 200, answer(body)

    workload = replace(
        PRESETS["chatbot"](), slo=(Clause("ttft_s", 90, limit_s),),
        availability=Availability(90, 60),
    )  # fmt: skip
    async with FakeServer(complete) as server:
        bench = Bench(replace(options, url=server.url), workload, requests, {}, lambda *_: None)
        await asyncio.to_thread(bench.measure)
    return bench, peak


REQUESTS = [request(i, 0.05 * i) for i in range(6)]


async def test_serial_has_one_open_and_burst_all() -> None:
    serial, peak = await measure(replace(BASE, mode="serial"), REQUESTS)
    assert (peak, serial.points[0].summary.requests) == (1, 4)
    burst, peak = await measure(replace(BASE, mode="burst"), REQUESTS)
    assert (peak, burst.points[0].summary.answered) == (4, 4)


async def test_the_load_is_the_workloads_own_and_speed_presses_it() -> None:
    usual, _ = await measure(BASE, REQUESTS)
    fast, _ = await measure(replace(BASE, speed=2.0), REQUESTS)
    dues = [[round(r.due_s, 6) for r in b.points[0].run.records] for b in (usual, fast)]
    assert dues[0] == pytest.approx([0.05 * i for i in range(6)])
    assert dues[1] == pytest.approx([0.025 * i for i in range(6)])
    assert fast.points[0].run.load["speed"] == 2.0


async def test_a_sweep_goes_from_serial_to_burst() -> None:
    options = replace(BASE, mode="sweep", rates=(10.0, 20.0), duration_s=0.3)
    bench, _ = await measure(options, REQUESTS)
    assert [point.name for point in bench.points] == ["serial", "10/s", "20/s", "burst"]
    counts = [point.summary.requests for point in bench.points]
    assert counts == [4, 3, 6, 4]


async def test_the_search_finds_a_rate_that_keeps_the_promise() -> None:
    options = replace(BASE, mode="search", rates=(5.0, 400.0), duration_s=0.2)
    bench, _ = await measure(options, REQUESTS, limit_s=0.2, most=3)
    best = bench.best_rate
    assert best is not None
    assert best < 400.0
    assert any(not p.summary.verdict.passed for p in bench.points if p.summary.verdict)


async def test_what_cannot_be_measured_is_refused() -> None:
    for options, told in (
        (replace(BASE, warm_up_s=1.0), "--duration-s"),
        (replace(BASE, mode="rates"), "--rates"),
        (replace(BASE, speed=0.0), "--speed"),
    ):
        with pytest.raises(ConfigError, match=told):
            options.validate()
    with pytest.raises(ConfigError, match="no request"):
        await measure(BASE, [])


def test_the_exit_code_names_the_broken_promise() -> None:
    one = run()
    assert exit_code(summarise(one)) == 11, "the second clause of the two"
    one.clauses = one.clauses[:1]
    assert exit_code(summarise(one)) == 9, "availability"
    one.availability = None
    assert exit_code(summarise(one)) == 0
