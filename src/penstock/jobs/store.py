"""The state of jobs: which rows there are, and the result of each, once.

Bodies stay in the input file; a row remembers where its line is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from penstock.jobs.database import Database

PAGE = 256
"""Rows read at once."""


class State(IntEnum):
    WAITING = 0
    DONE = 1
    """answered with 200"""
    FAILED = 2
    """could not be run, or answered with another status"""


ENDED = (State.DONE, State.FAILED)


@dataclass(frozen=True, slots=True)
class Job:
    id: str
    input: str
    """path of the input file"""
    input_sha256: str
    model: str
    status: str
    """OpenAI's words: in_progress, completed, cancelled …"""
    created_s: float
    """seconds since the epoch"""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of input: where it stands, from its 1-based number down to its bytes."""

    number: int
    custom_id: str | None
    start: int
    size: int
    error: bytes | None = None
    """its result, when the line cannot be run"""


@dataclass(frozen=True, slots=True)
class Result:
    number: int
    state: State
    line: bytes
    """one line of output, without its end"""


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows of a job."""

    waiting: int = 0
    done: int = 0
    failed: int = 0

    @property
    def total(self) -> int:
        return self.waiting + self.done + self.failed

    def after(self, results: Sequence[Result]) -> Counts:
        """The counts once these waiting rows have their results."""
        done = sum(result.state is State.DONE for result in results)
        failed = len(results) - done
        return Counts(self.waiting - len(results), self.done + done, self.failed + failed)


class Store:
    def __init__(self, database: Database) -> None:
        self._db = database

    def create(self, job: Job, rows: Iterable[tuple[Row, bytes]]) -> None:
        """Add a job with all its rows, or nothing. Each row comes with the result that it gets
        if an earlier row of the job has its custom_id."""
        with self._db.transaction():
            self._db.execute(
                "INSERT INTO job VALUES (?, ?, ?, ?, ?, ?)",
                (job.id, job.input, job.input_sha256, job.model, job.status, job.created_s),
            )
            for row, duplicate in rows:
                if not self._insert(job.id, row, row.error, owns_id=row.custom_id is not None):
                    self._insert(job.id, row, duplicate, owns_id=False)

    def _insert(self, job: str, row: Row, error: bytes | None, owns_id: bool) -> bool:
        state = State.WAITING if error is None else State.FAILED
        changed = self._db.execute(
            "INSERT INTO line VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (job, row.number, row.custom_id, owns_id, row.start, row.size, state, error),
        )
        return changed == 1

    def job(self, job_id: str) -> Job | None:
        found = self._db.rows("SELECT * FROM job WHERE id = ?", (job_id,))
        return Job(*found[0]) if found else None

    def jobs(self) -> list[Job]:
        """The newest first."""
        query = "SELECT * FROM job ORDER BY created_s DESC, id"
        return [Job(*row) for row in self._db.rows(query)]

    def delete(self, job_id: str) -> None:
        """Forget a job and its rows."""
        self._db.execute("DELETE FROM job WHERE id = ?", (job_id,))

    def set_status(self, job_id: str, status: str) -> None:
        self._db.execute("UPDATE job SET status = ? WHERE id = ?", (status, job_id))

    def counts(self, job_id: str) -> Counts:
        query = "SELECT state, count(*) FROM line WHERE job = ? GROUP BY state"
        found = dict(self._db.rows(query, (job_id,)))
        return Counts(*(found.get(state, 0) for state in State))

    def waiting(self, job_id: str) -> Iterator[Row]:
        """Rows without a result, in the order of the input."""
        query = (
            "SELECT number, custom_id, start, size FROM line "
            "WHERE job = ? AND number > ? AND state = 0 ORDER BY number LIMIT ?"
        )
        for row in self._pages(query, job_id):
            yield Row(*row)

    def results(self, job_id: str, states: Sequence[State] = ENDED) -> Iterator[bytes]:
        """Lines of output, in the order of the input."""
        among = ", ".join(str(int(state)) for state in states)
        query = (
            "SELECT number, result FROM line "
            f"WHERE job = ? AND number > ? AND state IN ({among}) ORDER BY number LIMIT ?"
        )
        for _, line in self._pages(query, job_id):
            yield line

    def finish(self, job_id: str, results: Sequence[Result]) -> None:
        """Keep these results, all or none. Raises RuntimeError if a row has one already."""
        with self._db.transaction():
            for result in results:
                changed = self._db.execute(
                    "UPDATE line SET state = ?, result = ? "
                    "WHERE job = ? AND number = ? AND state = 0",
                    (result.state, result.line, job_id, result.number),
                )
                if changed != 1:
                    raise RuntimeError(f"row {result.number} of {job_id} has a result already")

    def _pages(self, query: str, job_id: str) -> Iterator[Any]:
        """Rows of a query over (job, last number, limit) whose first column is the number: no
        cursor stays open while others write."""
        last = 0
        while page := self._db.rows(query, (job_id, last, PAGE)):
            yield from page
            last = page[-1][0]
