from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.jobs.database import Database
from penstock.jobs.store import PAGE, Counts, Job, Result, Row, State, Store

JOB = Job("j", "in.jsonl", "00", "demo", "in_progress", 1.0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    database = Database(tmp_path / "state.sqlite")
    yield Store(database)
    database.close()


def rows(count: int) -> list[tuple[Row, bytes]]:
    return [(Row(n, f"id-{n}", 10 * n, 9), b"repeated") for n in range(1, count + 1)]


def test_a_job_comes_back_as_it_was(store: Store) -> None:
    store.create(JOB, rows(3))
    assert store.job("j") == JOB
    assert store.job("other") is None
    assert [row.number for row in store.waiting("j")] == [1, 2, 3]
    assert store.counts("j") == Counts(waiting=3)


def test_results_are_kept_once_and_read_in_order(store: Store) -> None:
    store.create(JOB, rows(3))
    store.finish("j", [Result(3, State.DONE, b"three"), Result(1, State.FAILED, b"one")])
    assert list(store.results("j")) == [b"one", b"three"]
    assert [row.number for row in store.waiting("j")] == [2]
    with pytest.raises(RuntimeError, match="row 1 "):
        store.finish("j", [Result(2, State.DONE, b"two"), Result(1, State.DONE, b"again")])
    assert list(store.results("j")) == [b"one", b"three"], "a refused group leaves nothing behind"
    assert store.counts("j") == Counts(waiting=1, done=1, failed=1)


def test_a_repeated_custom_id_gets_its_result_at_once(store: Store) -> None:
    invalid = Row(3, "b", 30, 9, error=b"invalid")
    store.create(
        JOB,
        [
            (Row(1, "a", 0, 9), b"repeated 1"),
            (Row(2, "a", 10, 9), b"repeated 2"),
            (invalid, b"repeated 3"),
            (Row(4, "b", 40, 9), b"repeated 4"),
            (Row(5, None, 50, 9, error=b"no id"), b"repeated 5"),
            (Row(6, None, 60, 9, error=b"no id either"), b"repeated 6"),
        ],
    )
    assert [row.number for row in store.waiting("j")] == [1]
    results = [b"repeated 2", b"invalid", b"repeated 4", b"no id", b"no id either"]
    assert list(store.results("j")) == results


def test_a_job_whose_rows_fail_midway_is_not_there(store: Store) -> None:
    def broken() -> Iterator[tuple[Row, bytes]]:
        yield from rows(2)
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        store.create(JOB, broken())
    assert store.job("j") is None
    assert store.counts("j") == Counts()


def test_many_rows_are_read_in_pages_while_results_are_written(store: Store) -> None:
    count = 2 * PAGE + 3
    store.create(JOB, rows(count))
    seen = []
    for row in store.waiting("j"):
        seen.append(row.number)
        store.finish("j", [Result(row.number, State.DONE, b"%d" % row.number)])
    assert seen == list(range(1, count + 1))
    assert list(store.results("j")) == [b"%d" % n for n in seen]


def test_jobs_are_apart_and_deleted_with_their_rows(store: Store) -> None:
    later = Job("k", "in.jsonl", "00", "demo", "in_progress", 2.0)
    store.create(JOB, rows(2))
    store.create(later, rows(1))
    store.set_status("k", "completed")
    assert [(job.id, job.status) for job in store.jobs()] == [
        ("k", "completed"),
        ("j", "in_progress"),
    ]
    store.delete("j")
    assert store.counts("j") == Counts()
    assert store.counts("k") == Counts(waiting=1)


def test_results_are_read_by_state(store: Store) -> None:
    store.create(JOB, rows(3))
    store.finish("j", [Result(3, State.DONE, b"three"), Result(1, State.FAILED, b"one")])
    assert list(store.results("j", [State.DONE])) == [b"three"]
    assert list(store.results("j", [State.FAILED])) == [b"one"]


def test_state_survives_closing(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    first = Database(path)
    Store(first).create(JOB, rows(2))
    Store(first).finish("j", [Result(1, State.DONE, b"one")])
    first.close()
    second = Database(path)
    assert Store(second).counts("j") == Counts(waiting=1, done=1)
    second.close()
