"""`penstock batch run`: a file of requests to a file of results, resumable, each row exactly once.

The truth is a store beside the output. The output itself is written when all rows have a result:
in the order of the input, under another name, then renamed; so it is whole or not there.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from penstock.errors import ConfigError
from penstock.jobs.database import Database
from penstock.jobs.lines import LineError, failure, parse
from penstock.jobs.runner import Handler, raw_lines, row_id, work
from penstock.jobs.store import Counts, Job, Result, Row, Store

JOB = "batch"
"""Id of the one job in the store beside an output."""


class Batch:
    """A batch that is new or taken up again; to be used in a `with` statement.

    Raises ConfigError when the input cannot be read or is not the one that the batch was started
    with, when the model is another one, when the output belongs to something else, or when
    another process works on this batch.
    """

    def __init__(self, input: Path, output: Path, model: str) -> None:
        self.input = input
        self.output = output
        self.state = output.with_name(output.name + ".state.sqlite")
        digest = _sha256(input)
        _check_output(output, self.state)
        self._database = Database(self.state)
        self._store = Store(self._database)
        try:
            self._job = self._open(digest, model)
        except BaseException:
            self._database.close()
            raise
        self.counts = self._store.counts(JOB)

    def __enter__(self) -> Batch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._database.close()

    async def run(
        self,
        handler: Handler,
        concurrency: int,
        progress: Callable[[Counts], None] = lambda counts: None,
    ) -> None:
        """Run the waiting rows; `progress` hears of every change. Raises as `runner.work`."""

        def told(results: list[Result]) -> None:
            self.counts = self.counts.after(results)
            progress(self.counts)

        await work(self._store, self._job, handler, concurrency, told)

    def export(self) -> None:
        """Write the output: every row has a result by now."""
        assert self.counts.waiting == 0
        partial = self.output.with_name(self.output.name + ".partial")
        with partial.open("wb") as file:
            for line in self._store.results(JOB):
                file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.output)
        self._store.set_status(JOB, "completed")

    def _open(self, digest: str, model: str) -> Job:
        """The job in the store, or a new one."""
        job = self._store.job(JOB)
        if job is None:
            job = Job(JOB, str(self.input.resolve()), digest, model, "in_progress", time.time())
            self._store.create(job, scan(self.input))
            return job
        again = f"Use another -o, or delete {self.state} to start over."
        if job.input_sha256 != digest:
            raise ConfigError(
                f"{self.input} is not the input that this batch was started with.", cure=again
            )
        if job.model != model:
            raise ConfigError(
                f"This batch was started with the model {job.model}, not {model}.", cure=again
            )
        return replace(job, input=str(self.input.resolve()))


def scan(path: Path) -> Iterator[tuple[Row, bytes]]:
    """Each line of the input that is not blank, with the result of a repeated custom_id."""
    for number, start, text in raw_lines(path):
        yield _row(number, start, text)


def _row(number: int, start: int, text: bytes) -> tuple[Row, bytes]:
    line = parse(text)
    row = Row(number, line.custom_id, start, len(text))
    repeated = LineError("duplicate_custom_id", "An earlier line has the same custom_id.")
    if line.error is not None:
        error = LineError(line.error.code, f"Line {number}: {line.error.message}")
        row = replace(row, error=failure(row_id(row), row.custom_id, error))
    return row, failure(row_id(row), row.custom_id, repeated)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}.", cure="Check the path of the input."
        ) from error


def _check_output(output: Path, state: Path) -> None:
    if not output.parent.is_dir():
        raise ConfigError(f"The folder {output.parent} does not exist.", cure="Make it first.")
    if output.exists() and not state.exists():
        raise ConfigError(
            f"{output} exists and belongs to no batch that could be resumed.",
            cure="Choose another -o, or move it away.",
        )
