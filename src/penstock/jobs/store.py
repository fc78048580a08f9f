"""The state of jobs in one SQLite file: which rows there are, and the result of each, once.

Write-ahead logging: a killed process loses at most rows that it had not yet been told were kept,
and never half of one. Bodies stay in the input file; a row remembers where its line is.
One process owns a store at a time. Its methods may be called from any thread.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from penstock.errors import ConfigError

SCHEMA = """
CREATE TABLE IF NOT EXISTS job (
    id TEXT PRIMARY KEY,
    input TEXT NOT NULL,
    input_sha256 TEXT NOT NULL,
    model TEXT NOT NULL,
    status TEXT NOT NULL,
    created_s REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS line (
    job TEXT NOT NULL REFERENCES job(id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    custom_id TEXT,
    owns_id INTEGER NOT NULL,
    start INTEGER NOT NULL,
    size INTEGER NOT NULL,
    state INTEGER NOT NULL,
    result BLOB,
    PRIMARY KEY (job, number)
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS line_custom_id ON line(job, custom_id) WHERE owns_id;
CREATE INDEX IF NOT EXISTS line_waiting ON line(job, number) WHERE state = 0;
"""
SCHEMA_VERSION = 1
PAGE = 256
"""Rows read at once."""


class State(IntEnum):
    WAITING = 0
    DONE = 1
    """answered with 200"""
    FAILED = 2
    """could not be run, or answered with another status"""


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


class Store:
    """Raises ConfigError when the file is no store, or another process has it open."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, timeout=1.0, check_same_thread=False)
        self._db.isolation_level = None  # transactions are written out below
        try:
            # Exclusive: whoever dies, even by kill -9, leaves no lock behind.
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute("PRAGMA foreign_keys = ON")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version not in (0, SCHEMA_VERSION):
                raise ConfigError(
                    f"{path} was written by another version of Penstock (schema {version}).",
                    cure="Use that version, or delete the file to start over.",
                )
            self._db.executescript(f"{SCHEMA}PRAGMA user_version = {SCHEMA_VERSION};")
        except sqlite3.OperationalError as error:
            self._db.close()
            raise ConfigError(
                f"{path} cannot be opened: {error}.",
                cure="If another process works on this job, let it finish or stop it.",
            ) from error
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise ConfigError(f"{path} is no job state: {error}.", cure="Delete it.") from error

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def create(self, job: Job, rows: Iterable[tuple[Row, bytes]]) -> None:
        """Add a job with all its rows, or nothing. Each row comes with the result that it gets
        if an earlier row of the job has its custom_id."""
        with self._lock, self._transaction():
            self._db.execute(
                "INSERT INTO job VALUES (?, ?, ?, ?, ?, ?)",
                (job.id, job.input, job.input_sha256, job.model, job.status, job.created_s),
            )
            for row, duplicate in rows:
                if not self._insert(job.id, row, row.error, owns_id=row.custom_id is not None):
                    self._insert(job.id, row, duplicate, owns_id=False)

    def _insert(self, job: str, row: Row, error: bytes | None, owns_id: bool) -> bool:
        state = State.WAITING if error is None else State.FAILED
        cursor = self._db.execute(
            "INSERT INTO line VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (job, row.number, row.custom_id, owns_id, row.start, row.size, state, error),
        )
        return cursor.rowcount == 1

    def job(self, job_id: str) -> Job | None:
        found = self._rows("SELECT * FROM job WHERE id = ?", (job_id,))
        return Job(*found[0]) if found else None

    def jobs(self) -> list[Job]:
        """The newest first."""
        return [Job(*row) for row in self._rows("SELECT * FROM job ORDER BY created_s DESC, id")]

    def delete(self, job_id: str) -> None:
        """Forget a job and its rows."""
        with self._lock:
            self._db.execute("DELETE FROM job WHERE id = ?", (job_id,))

    def set_status(self, job_id: str, status: str) -> None:
        with self._lock:
            self._db.execute("UPDATE job SET status = ? WHERE id = ?", (status, job_id))

    def counts(self, job_id: str) -> Counts:
        query = "SELECT state, count(*) FROM line WHERE job = ? GROUP BY state"
        found = dict(self._rows(query, (job_id,)))
        return Counts(*(found.get(state, 0) for state in State))

    def waiting(self, job_id: str) -> Iterator[Row]:
        """Rows without a result, in the order of the input."""
        query = (
            "SELECT number, custom_id, start, size FROM line "
            "WHERE job = ? AND number > ? AND state = 0 ORDER BY number LIMIT ?"
        )
        for row in self._pages(query, job_id):
            yield Row(*row)

    def results(self, job_id: str) -> Iterator[bytes]:
        """Lines of output, in the order of the input."""
        query = (
            "SELECT number, result FROM line "
            "WHERE job = ? AND number > ? AND state != 0 ORDER BY number LIMIT ?"
        )
        for _, line in self._pages(query, job_id):
            yield line

    def finish(self, job_id: str, results: Sequence[Result]) -> None:
        """Keep these results, all or none. Raises RuntimeError if a row has one already."""
        with self._lock, self._transaction():
            for result in results:
                cursor = self._db.execute(
                    "UPDATE line SET state = ?, result = ? "
                    "WHERE job = ? AND number = ? AND state = 0",
                    (result.state, result.line, job_id, result.number),
                )
                if cursor.rowcount != 1:
                    raise RuntimeError(f"row {result.number} of {job_id} has a result already")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _rows(self, query: str, values: tuple[object, ...] = ()) -> list[Any]:
        with self._lock:
            return self._db.execute(query, values).fetchall()

    def _pages(self, query: str, job_id: str) -> Iterator[Any]:
        """Rows of a query over (job, last number, limit) whose first column is the number: no
        cursor stays open while others write."""
        last = 0
        while page := self._rows(query, (job_id, last, PAGE)):
            yield from page
            last = page[-1][0]
