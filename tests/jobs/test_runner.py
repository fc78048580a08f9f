from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import UnavailableError
from penstock.jobs.batch import scan
from penstock.jobs.database import Database
from penstock.jobs.runner import Reply, work
from penstock.jobs.store import Counts, Job, Store
from tests.jobs.fake_api import FakeApi


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    database = Database(tmp_path / "state.sqlite")
    yield Store(database)
    database.close()


def make_job(store: Store, folder: Path, count: int) -> Job:
    path = folder / "in.jsonl"
    same = {"method": "POST", "url": "/v1/completions"}
    lines = [same | {"custom_id": f"c{n}", "body": {"prompt": f"{n}x"}} for n in range(count)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    job = Job("j", str(path), "00", "fake", "in_progress", 0.0)
    store.create(job, scan(path))
    return job


async def test_all_rows_run_within_the_concurrency(store: Store, tmp_path: Path) -> None:
    job = make_job(store, tmp_path, 50)
    api, told = FakeApi(longest_s=0.003), 0

    def hear(results: list[Any]) -> None:
        nonlocal told
        told += len(results)

    await work(store, job, api, 7, hear)
    assert (api.calls, told, api.most_active) == (50, 50, 7)
    lines = [json.loads(line) for line in store.results("j")]
    assert [line["custom_id"] for line in lines] == [f"c{n}" for n in range(50)]
    assert [line["response"]["body"]["text"] for line in lines] == [
        f"{n}x"[::-1] for n in range(50)
    ]


async def test_not_now_is_no_result(store: Store, tmp_path: Path) -> None:
    job = make_job(store, tmp_path, 4)
    refusals = iter([429, 503, 429])

    async def sometimes_full(url: str, body: dict[str, Any]) -> Reply:
        status = next(refusals, 200)
        return Reply(status, "r", {"error": {"code": "queue_full", "message": "full"}})

    await work(store, job, sometimes_full, 2, lambda _: None)
    assert store.counts("j") == Counts(done=4)


async def test_patience_ends_and_the_rest_stays_waiting(store: Store, tmp_path: Path) -> None:
    job = make_job(store, tmp_path, 6)
    calls = 0

    async def full_after_three(url: str, body: dict[str, Any]) -> Reply:
        nonlocal calls
        calls += 1
        status = 200 if calls <= 3 else 429
        return Reply(status, "r", {"error": {"code": "queue_full", "message": "the queue is full"}})

    with pytest.raises(UnavailableError, match="the queue is full"):
        await work(store, job, full_after_three, 1, lambda _: None, patience_s=0.1)
    assert store.counts("j") == Counts(waiting=3, done=3)


async def test_a_row_that_is_put_off_waits_for_the_others(store: Store, tmp_path: Path) -> None:
    """A row of many choices found the queue full for as long as the others refilled it."""
    job = make_job(store, tmp_path, 12)
    api = FakeApi(longest_s=0.0)

    async def needs_an_empty_queue(url: str, body: dict[str, Any]) -> Reply:
        if body["prompt"] == "0x" and api.calls < 11:
            return Reply(429, "r", {"error": {"code": "queue_full", "message": "full"}})
        await asyncio.sleep(0.03)
        return await api(url, body)

    await work(store, job, needs_an_empty_queue, 2, lambda _: None, patience_s=0.2)
    assert store.counts("j") == Counts(done=12)


async def test_a_dead_engine_ends_the_run_at_once(store: Store, tmp_path: Path) -> None:
    job = make_job(store, tmp_path, 6)

    async def dead(url: str, body: dict[str, Any]) -> Reply:
        return Reply(503, "r", {"error": {"code": "engine_dead", "message": "it died"}})

    with pytest.raises(UnavailableError, match="it died"):
        await asyncio.wait_for(work(store, job, dead, 3, lambda _: None), timeout=5)
    assert store.counts("j") == Counts(waiting=6)


async def test_a_fault_keeps_what_came_before(store: Store, tmp_path: Path) -> None:
    job = make_job(store, tmp_path, 6)
    api = FakeApi()

    async def breaks(url: str, body: dict[str, Any]) -> Reply:
        if api.calls == 4:
            raise ValueError("a bug")
        return await api(url, body)

    with pytest.raises(ValueError, match="a bug"):
        await work(store, job, breaks, 1, lambda _: None)
    assert store.counts("j") == Counts(waiting=2, done=4)


async def test_a_cancelled_run_goes_on_later(store: Store, tmp_path: Path) -> None:
    job = make_job(store, tmp_path, 40)
    some_done = asyncio.Event()
    api = FakeApi(longest_s=0.02)
    running = asyncio.create_task(work(store, job, api, 4, lambda _: some_done.set()))
    await some_done.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert store.counts("j").waiting > 0
    await work(store, job, FakeApi(), 4, lambda _: None)
    assert store.counts("j") == Counts(done=40)
