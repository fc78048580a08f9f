"""One SQLite file with all that jobs and the API keep.

Write-ahead logging: a killed process loses at most what it had not yet been told was kept, and
never half of a transaction. One process owns a file at a time; methods may be called from any
thread.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
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
CREATE TABLE IF NOT EXISTS object (
    serial INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    data BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS object_owner ON object(kind, owner, serial);
"""
SCHEMA_VERSION = 1


class Database:
    """Raises ConfigError when the file is no such database, or another process has it open."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._nested = False
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
        except ConfigError:
            self._db.close()
            raise
        except sqlite3.OperationalError as error:
            self._db.close()
            raise ConfigError(
                f"{path} cannot be opened: {error}.",
                cure="If another process works on it, let it finish or stop it.",
            ) from error
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise ConfigError(f"{path} is no job state: {error}.", cure="Delete it.") from error

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def rows(self, query: str, values: tuple[object, ...] = ()) -> list[Any]:
        with self._lock:
            return self._db.execute(query, values).fetchall()

    def execute(self, query: str, values: tuple[object, ...] = ()) -> int:
        """The number of rows that it changed."""
        with self._lock:
            return self._db.execute(query, values).rowcount

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; one inside another is part of it."""
        with self._lock:
            if self._nested:
                yield
                return
            self._nested = True
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            else:
                self._db.execute("COMMIT")
            finally:
                self._nested = False
