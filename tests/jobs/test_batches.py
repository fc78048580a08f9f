from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import InvalidFieldError, NotFoundError
from penstock.jobs import batches as batches_module
from penstock.jobs.batches import ENDS, MAX_ERRORS, Batches, validate
from penstock.jobs.database import Database
from penstock.jobs.files import Files
from penstock.jobs.runner import Handler, Reply
from tests.jobs.fake_api import FakeApi
from tests.jobs.fake_batches import OWNER, line
from tests.waiting import until

URL = "/v1/completions"


class Place:
    """A data folder and the batches in it; `open` again is another process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[tuple[str, int, int]] = []

    @asynccontextmanager
    async def open(self, handler: Handler | None = None) -> AsyncIterator[Batches]:
        database = Database(self.folder / "state.sqlite")
        self.files = Files(database, self.folder / "files")
        self.batches = Batches(database, self.files)
        api = handler or FakeApi(longest_s=0.002)
        self.batches.start(lambda owner: api, 4, lambda *told: self.told.append(told))
        yield self.batches
        await self.batches.stop()
        database.close()

    def upload(self, *lines: bytes, owner: str = OWNER) -> str:
        id: str = self.files.save(owner, "in.jsonl", "batch", lines)["id"]
        return id

    def new(self, *lines: bytes, owner: str = OWNER) -> str:
        file = self.upload(*lines, owner=owner)
        id: str = self.batches.create(owner, file, URL, {"note": "x"})["id"]
        return id

    async def ended(self, id: str, owner: str = OWNER) -> dict[str, Any]:
        await until(lambda: self.batches.get(owner, id)["status"] in ENDS)
        return self.batches.get(owner, id)

    def lines(self, file_id: str) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self.files.path(file_id).read_text().splitlines()]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def bad(number: int) -> bytes:
    return line(number).replace(b'"p%d"}' % number, b'"p%d", "status": 400}' % number)


async def test_answers_and_refusals_have_files_of_their_own(place: Place) -> None:
    async with place.open() as batches:
        batch = await place.ended(place.new(line(0), b"\n", bad(1), line(2)))
        assert batch["status"] == "completed"
        assert batch["request_counts"] == {"total": 3, "completed": 2, "failed": 1}
        assert batch["metadata"] == {"note": "x"}
        assert batch["created_at"] <= batch["in_progress_at"] <= batch["completed_at"]
        output = place.lines(batch["output_file_id"])
        assert [row["custom_id"] for row in output] == ["c0", "c2"]
        assert output[1]["response"]["body"]["text"] == "2p"
        (error,) = place.lines(batch["error_file_id"])
        assert (error["custom_id"], error["response"]["status_code"]) == ("c1", 400)
        described = place.files.get(OWNER, batch["output_file_id"])
        assert described["purpose"] == "batch_output"
        assert described["bytes"] == place.files.path(described["id"]).stat().st_size
        assert sum(done for _, done, _ in place.told) == 2
        assert batches.num_waiting == 0


async def test_a_file_that_cannot_be_read_fails_with_its_lines(place: Place) -> None:
    async with place.open():
        other = line(3).replace(b"completions", b"chat/completions")
        batch = await place.ended(place.new(line(0), b"{ no json\n", line(0), other))
        assert batch["status"] == "failed"
        assert [(e["line"], e["code"]) for e in batch["errors"]["data"]] == [
            (2, "invalid_json"),
            (3, "duplicate_custom_id"),
            (4, "mismatched_endpoint"),
        ]
        empty = await place.ended(place.new(b"\n\n"))
        assert [e["code"] for e in empty["errors"]["data"]] == ["empty_file"]
        assert empty["output_file_id"] is None


def test_limits_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def lines(count: int, text: bytes | None = None) -> Iterator[tuple[int, int, bytes]]:
        return ((n, 0, text or line(n)) for n in range(1, count + 1))

    monkeypatch.setattr(batches_module, "MAX_ROWS", 5)
    assert len(validate(lines(5), URL)[0]) == 5
    assert [(n, e.code) for n, e in validate(lines(9), URL)[1]] == [(6, "too_many_requests")]
    assert len(validate(lines(2 * MAX_ERRORS, b"x"), URL)[1]) == MAX_ERRORS


async def test_a_batch_is_its_owners_alone(place: Place) -> None:
    async with place.open() as batches:
        id = place.new(line(0))
        file = batches.get(OWNER, id)["input_file_id"]
        for act in (batches.get, batches.cancel):
            with pytest.raises(NotFoundError):
                act("bob", id)
        with pytest.raises(NotFoundError):
            batches.create("bob", file, URL, None)
        assert batches.page("bob", None, 9).data == []
        await place.ended(id)


async def test_results_are_no_input(place: Place) -> None:
    async with place.open() as batches:
        batch = await place.ended(place.new(line(0)))
        with pytest.raises(InvalidFieldError, match="purpose"):
            batches.create(OWNER, batch["output_file_id"], URL, None)


async def test_cancelling_keeps_what_is_done(place: Place) -> None:
    some = asyncio.Event()
    api, calls = FakeApi(), 0

    async def slow(url: str, body: dict[str, Any]) -> Reply:
        nonlocal calls
        calls += 1
        if calls > 10:
            some.set()
            await asyncio.Event().wait()
        return await api(url, body)

    async with place.open(slow) as batches:
        id = place.new(*(line(n) for n in range(40)))
        waiting = place.new(line(0))
        await asyncio.wait_for(some.wait(), 30)
        assert batches.uses(OWNER, batches.get(OWNER, id)["input_file_id"]) == id
        assert batches.cancel(OWNER, waiting)["status"] == "cancelling"
        assert batches.cancel(OWNER, id)["status"] == "cancelling"
        batch = await place.ended(id)
        assert batch["status"] == "cancelled"
        done = batch["request_counts"]["completed"]
        assert len(place.lines(batch["output_file_id"])) == done <= 10
        assert batch["error_file_id"] is None
        assert (await place.ended(waiting))["output_file_id"] is None
        with pytest.raises(InvalidFieldError, match="nothing left"):
            batches.cancel(OWNER, id)


async def test_time_runs_out(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(url: str, body: dict[str, Any]) -> Reply:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(batches_module, "WINDOW_S", 0)
    async with place.open(never):
        batch = await place.ended(place.new(line(0), line(1)))
        assert batch["status"] == "expired"
        assert batch["request_counts"] == {"total": 2, "completed": 0, "failed": 2}
        errors = place.lines(batch["error_file_id"])
        assert [row["error"]["code"] for row in errors] == ["batch_expired"] * 2


async def test_owners_batches_run_side_by_side_each_owners_in_turn(place: Place) -> None:
    async with place.open():
        ids = [place.new(*(line(n) for n in range(20))) for _ in range(2)]
        other = place.new(line(0), owner="bob")
        assert (await place.ended(other, "bob"))["status"] == "completed"
        ends = [(await place.ended(id))["status"] for id in ids]
        assert ends == ["completed"] * 2


async def test_what_says_later_is_tried_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches_module, "RETRY_S", 0.01)
    answers = iter([Reply(503, "r", {"error": {"code": "engine_dead", "message": "gone"}})])
    api = FakeApi()

    async def dead_once(url: str, body: dict[str, Any]) -> Reply:
        return next(answers, None) or await api(url, body)

    async with place.open(dead_once):
        batch = await place.ended(place.new(line(0), line(1)))
        assert batch["request_counts"] == {"total": 2, "completed": 2, "failed": 0}


async def test_a_fault_of_ours_ends_the_batch_and_not_the_next(place: Place) -> None:
    api = FakeApi()

    async def broken(url: str, body: dict[str, Any]) -> Reply:
        if body["prompt"] == "p0":
            raise RuntimeError("a bug")
        return await api(url, body)

    async with place.open(broken):
        first, second = place.new(line(0)), place.new(line(1))
        failed = await place.ended(first)
        assert failed["errors"]["data"][0]["code"] == "internal_error"
        assert (await place.ended(second))["status"] == "completed"


async def test_stopped_in_the_middle_it_goes_on(place: Place) -> None:
    async with place.open(FakeApi(longest_s=0.02)):
        id = place.new(*(line(n) for n in range(60)))
        await until(lambda: place.told)
    async with place.open():
        batch = await place.ended(id)
        assert batch["request_counts"] == {"total": 60, "completed": 60, "failed": 0}
        names = [row["custom_id"] for row in place.lines(batch["output_file_id"])]
        assert names == [f"c{n}" for n in range(60)]


def work_in_a_process(folder: Path) -> int:
    """Run 60 rows to their end, with kill -9 at random moments, from the upload to the files of
    results; returns the number of kills."""
    command = [sys.executable, "-m", "tests.jobs.fake_batches", str(folder), "60"]
    kills, rng, ended = 0, random.Random(3), False
    while not ended:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            try:
                ended = process.wait(60 if kills > 4 else rng.uniform(0, 0.15)) == 0
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1
    return kills


async def test_killed_at_any_moment_each_row_is_there_once(place: Place, tmp_path: Path) -> None:
    assert await asyncio.to_thread(work_in_a_process, tmp_path) >= 2
    async with place.open() as batches:
        (batch,) = batches.page(OWNER, None, 9).data
        assert batch["request_counts"] == {"total": 60, "completed": 60, "failed": 0}
        rows = place.lines(batch["output_file_id"])
        assert [row["custom_id"] for row in rows] == [f"c{n}" for n in range(60)]
        assert [row["response"]["body"]["text"] for row in rows] == [
            f"p{n}"[::-1] for n in range(60)
        ]
