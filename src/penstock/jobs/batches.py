"""The Batch API's jobs: from an uploaded file of requests to files of results, in the background.

    validating -> in_progress -> finalizing -> completed
         |             |-> cancelling -> cancelled
         |-> failed    |-> expired

Whatever moves a batch on is written down before it is told, and every stage can be done again, so
a server that is killed goes on where it was: rows that have a result keep it, the others run. Each
owner's batches run one after the other, those of different owners side by side.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from penstock.errors import InvalidFieldError, PenstockError
from penstock.jobs.database import Database
from penstock.jobs.files import Files
from penstock.jobs.lines import LineError, failure, parse
from penstock.jobs.objects import Json, Objects, Page
from penstock.jobs.runner import Handler, raw_lines, row_id, work
from penstock.jobs.store import Counts, Job, Result, Row, State, Store

log = logging.getLogger(__name__)

MAX_ROWS = 50_000
"""Of one batch, as OpenAI's."""
MAX_ERRORS = 100
"""Lines at fault that a failed batch names."""
WINDOW_S = 24 * 3600
ENDS = ("completed", "failed", "expired", "cancelled")
RETRY_S = 5.0
"""How long to wait when the API takes no rows, before they are tried again."""

Told = Callable[[str, int, int], None]
"""(endpoint, rows done, rows failed), once they are kept"""


@dataclass(slots=True)
class _Running:
    """A batch whose rows run now."""

    id: str
    counts: Counts
    task: asyncio.Task[None]


class Batches:
    def __init__(self, database: Database, files: Files) -> None:
        self._db = database
        self._store = Store(database)
        self._files = files
        self._objects = Objects(database, "batch")
        self._queues: dict[str, list[str]] = {}
        """by owner: ids of batches that are not at their end"""
        self._owners: dict[str, asyncio.Task[None]] = {}
        self._running: dict[str, _Running] = {}
        self._handler_of: Callable[[str], Handler] | None = None
        self._concurrency = 1
        self._told: Told = lambda endpoint, done, failed: None

    def start(self, handler_of: Callable[[str], Handler], concurrency: int, told: Told) -> None:
        """Work from now on, first on what an earlier process left.

        handler_of: the API, as an owner's background work sees it. concurrency: most rows of an
        owner that are asked at once.
        """
        self._handler_of, self._concurrency, self._told = handler_of, concurrency, told
        for owner, batch in self._objects.everybodys():
            if batch["status"] not in ENDS:
                self._enqueue(owner, batch["id"])

    async def stop(self) -> None:
        """Leave everything as it is; the next process goes on."""
        self._handler_of = None
        tasks = list(self._owners.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def num_waiting(self) -> int:
        """Rows without a result, of batches that run."""
        return sum(running.counts.waiting for running in self._running.values())

    def create(self, owner: str, file_id: str, endpoint: str, metadata: Json | None) -> Json:
        """Queue a new batch. Raises NotFoundError and InvalidFieldError."""
        if self._files.get(owner, file_id)["purpose"] != "batch":
            raise InvalidFieldError(
                f"{file_id} was not uploaded with the purpose 'batch'.", param="input_file_id"
            )
        now = int(time.time())
        stages = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling")
        batch: Json = {
            "id": f"batch_{secrets.token_hex(12)}",
            "object": "batch",
            "endpoint": endpoint,
            "errors": None,
            "input_file_id": file_id,
            "completion_window": "24h",
            "status": "validating",
            "output_file_id": None,
            "error_file_id": None,
            "created_at": now,
            "expires_at": now + WINDOW_S,
            **{f"{stage}_at": None for stage in (*stages, "cancelled")},
            "request_counts": _counts_json(Counts()),
            "metadata": metadata,
        }
        self._objects.add(owner, batch)
        self._enqueue(owner, batch["id"])
        return batch

    def get(self, owner: str, id: str) -> Json:
        """Raises NotFoundError."""
        return self._live(self._objects.get(owner, id))

    def page(self, owner: str, after: str | None, limit: int, newest_first: bool = True) -> Page:
        """Raises NotFoundError."""
        page = self._objects.page(owner, after, limit, newest_first)
        return replace(page, data=[self._live(batch) for batch in page.data])

    def cancel(self, owner: str, id: str) -> Json:
        """End a batch; what is done stays. Raises NotFoundError, and InvalidFieldError for one
        that is at its end."""
        with self._db.transaction():
            batch = self._objects.get(owner, id)
            if batch["status"] in (*ENDS, "finalizing"):
                raise InvalidFieldError(
                    f"{id} is {batch['status']}: there is nothing left to cancel.",
                    param="batch_id",
                )
            if batch["status"] != "cancelling":
                batch = self._move(self._live(batch), "cancelling")
        if running := self._running.get(id):
            running.task.cancel()
        return batch

    def uses(self, owner: str, file_id: str) -> str | None:
        """The id of a batch that still needs this file."""
        for id in self._queues.get(owner, []):
            if self._objects.get(owner, id)["input_file_id"] == file_id:
                return id
        return None

    def _live(self, batch: Json) -> Json:
        running = self._running.get(batch["id"])
        if running is not None:
            batch["request_counts"] = _counts_json(running.counts)
        return batch

    def _move(self, batch: Json, status: str, **change: Any) -> Json:
        """Write down the next status; returns the new object."""
        batch = {**batch, "status": status, f"{status}_at": int(time.time()), **change}
        self._objects.replace(batch)
        return batch

    # Working

    def _enqueue(self, owner: str, id: str) -> None:
        self._queues.setdefault(owner, []).append(id)
        if self._handler_of is not None and owner not in self._owners:
            self._owners[owner] = asyncio.create_task(self._serve(owner, self._handler_of(owner)))

    async def _serve(self, owner: str, handler: Handler) -> None:
        """Bring an owner's batches to their ends, one after the other."""
        queue = self._queues[owner]
        try:
            while queue:
                try:
                    await self._advance(owner, queue[0], handler)
                except PenstockError as error:
                    log.warning("batch %s waits: %s", queue[0], error)
                    await asyncio.sleep(RETRY_S)
                except Exception:
                    log.exception("batch %s failed", queue[0])
                    batch = self._objects.get(owner, queue.pop(0))
                    fault = LineError("internal_error", "The server's log has the cause.")
                    self._move(batch, "failed", errors=_errors([(None, fault)]))
                else:
                    queue.pop(0)
        finally:
            del self._owners[owner]

    async def _advance(self, owner: str, id: str, handler: Handler) -> None:
        """Bring a batch to its end, from wherever it stands."""
        batch = self._objects.get(owner, id)
        if batch["status"] == "validating":
            batch = await asyncio.to_thread(self._validate, owner, batch)
        if batch["status"] == "in_progress":
            batch = await self._run(owner, batch, handler)
        if batch["status"] in ("finalizing", "cancelling"):
            await asyncio.to_thread(self._finalize, owner, batch)

    def _validate(self, owner: str, batch: Json) -> Json:
        path = self._files.path(batch["input_file_id"])
        rows, errors = validate(raw_lines(path), batch["endpoint"])
        with self._db.transaction():
            now = self._objects.get(owner, batch["id"])
            if now["status"] == "cancelling":
                return now
            if errors:
                return self._move(now, "failed", errors=_errors(errors))
            job = Job(batch["id"], str(path), "", "", "", batch["created_at"])
            self._store.create(job, ((row, b"") for row in rows))
            counts = _counts_json(Counts(waiting=len(rows)))
            return self._move(now, "in_progress", request_counts=counts)

    async def _run(self, owner: str, batch: Json, handler: Handler) -> Json:
        """Run the waiting rows until all are done, the time is over or somebody cancels."""
        id, endpoint = batch["id"], batch["endpoint"]
        job, counts = self._store.job(id), await asyncio.to_thread(self._store.counts, id)
        assert job is not None
        path = self._files.path(batch["input_file_id"])  # the folder may have moved
        job = replace(job, input=str(path))

        def told(results: list[Result]) -> None:
            before = running.counts
            running.counts = before.after(results)
            done = running.counts.done - before.done
            self._told(endpoint, done, len(results) - done)

        working = asyncio.create_task(work(self._store, job, handler, self._concurrency, told))
        running = self._running[id] = _Running(id, counts, working)
        try:
            if self._objects.get(owner, id)["status"] == "cancelling":
                working.cancel()
            left_s = batch["expires_at"] - time.time()
            await asyncio.wait({working}, timeout=max(0.0, left_s))
            expired = not working.done()
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
        except asyncio.CancelledError:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            raise
        finally:
            counts = self._running.pop(id).counts
        if not expired and not working.cancelled():
            working.result()
        now = self._objects.get(owner, id) | {"request_counts": _counts_json(counts)}
        if now["status"] == "cancelling":
            self._objects.replace(now)
            return now
        if expired:
            await asyncio.to_thread(self._expire, id)
            now["request_counts"] = _counts_json(self._store.counts(id))
            now["expired_at"] = int(time.time())
        return self._move(now, "finalizing")

    def _expire(self, id: str) -> None:
        error = LineError("batch_expired", "The batch's time was over before this row's turn.")
        late = [
            Result(row.number, State.FAILED, failure(row_id(row), row.custom_id, error))
            for row in self._store.waiting(id)
        ]
        self._store.finish(id, late)

    def _finalize(self, owner: str, batch: Json) -> None:
        """Write the files of results. Their ids follow from the batch's: doing it again replaces
        what an attempt that was killed had written."""
        id, files = batch["id"], []
        for state, suffix in ((State.DONE, "output"), (State.FAILED, "error")):
            file_id = f"file-{id.removeprefix('batch_')}-{suffix}"
            lines = (line + b"\n" for line in self._store.results(id, [state]))
            first = next(lines, None)
            if first is not None:
                chunks = _chain(first, lines)
                name = f"{id}_{suffix}.jsonl"
                files.append(self._files.write(file_id, name, "batch_output", chunks))
                batch = batch | {f"{suffix}_file_id": file_id}
        end = "completed" if batch["status"] == "finalizing" else "cancelled"
        end = "expired" if batch["expired_at"] is not None else end
        with self._db.transaction():
            for file in files:
                self._files.add(owner, file)
            self._store.delete(id)
            self._move(batch, end)


def validate(
    lines: Iterator[tuple[int, int, bytes]], endpoint: str
) -> tuple[list[Row], list[tuple[int | None, LineError]]]:
    """The rows of a file of requests, and what is wrong with it, by line."""
    rows: list[Row] = []
    errors: list[tuple[int | None, LineError]] = []
    seen: set[str] = set()
    for number, start, text in lines:
        line = parse(text)
        error = line.error
        if error is None and line.url != endpoint:
            message = f"url is {line.url!r}, but the batch is for {endpoint}."
            error = LineError("mismatched_endpoint", message)
        if error is None and line.custom_id in seen:
            error = LineError("duplicate_custom_id", "An earlier line has the same custom_id.")
        if error is not None:
            errors.append((number, error))
            if len(errors) == MAX_ERRORS:
                break
            continue
        assert line.custom_id is not None
        seen.add(line.custom_id)
        rows.append(Row(number, line.custom_id, start, len(text)))
        if len(rows) > MAX_ROWS:
            message = f"A batch has at most {MAX_ROWS} requests."
            return [], [(number, LineError("too_many_requests", message))]
    if not rows and not errors:
        errors.append((None, LineError("empty_file", "The file has no requests.")))
    return rows, errors


def _errors(errors: list[tuple[int | None, LineError]]) -> Json:
    data = [
        {"code": error.code, "message": error.message, "param": None, "line": number}
        for number, error in errors
    ]
    return {"object": "list", "data": data}


def _counts_json(counts: Counts) -> Json:
    return {"total": counts.total, "completed": counts.done, "failed": counts.failed}


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
