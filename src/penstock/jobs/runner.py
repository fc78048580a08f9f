"""Works off the waiting rows of a job: bounded concurrency in, grouped commits out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from penstock.errors import EngineDeadError, UnavailableError
from penstock.jobs.lines import LineError, failure, parse, result
from penstock.jobs.store import Job, Result, Row, State, Store

NOT_NOW = (429, 503)
"""Statuses that say: later. They are no results."""

FIRST_WAIT_S = 0.05
MAX_WAIT_S = 5.0


class Reply(NamedTuple):
    """How the API answered: HTTP status, the id under which it is logged, the JSON body."""

    status: int
    request_id: str
    body: dict[str, Any]


class Handler(Protocol):
    """The API, in process: what the server would answer to a POST of `body` to `url`."""

    async def __call__(self, url: str, body: dict[str, Any]) -> Reply: ...


Told = Callable[[list[Result]], None]


async def work(
    store: Store,
    job: Job,
    handler: Handler,
    concurrency: int,
    told: Told,
    patience_s: float = 60.0,
) -> None:
    """Run every waiting row of the job; `told` hears of results once they are kept.

    Raises UnavailableError when the API says "later" and nothing else gets done either for
    `patience_s`, and whatever the handler raises; the results so far are kept and the rest stays
    waiting.
    """
    kept: asyncio.Queue[Result | None] = asyncio.Queue()
    rows = _lines(store.waiting(job.id), Path(job.input))
    client = _Client(handler, patience_s)
    trouble: list[Exception] = []

    async def one_worker() -> None:
        for row, text in rows:
            kept.put_nowait(await client.answer(row, text))

    async def workers() -> None:
        try:
            await _together(one_worker() for _ in range(concurrency))
        except Exception as error:
            trouble.append(error)  # raised below, when what came before it is kept
        finally:
            kept.put_nowait(None)

    await _together([workers(), _keep(store, job, kept, told)])
    if trouble:
        raise trouble[0]


async def _together(tasks: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all; the first failure cancels the others and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for task in tasks:
                group.create_task(task)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


def _lines(rows: Iterator[Row], path: Path) -> Iterator[tuple[Row, bytes]]:
    with path.open("rb") as file:
        for row in rows:
            file.seek(row.start)
            yield row, file.read(row.size)


async def _keep(store: Store, job: Job, kept: asyncio.Queue[Result | None], told: Told) -> None:
    """Write results down until None comes: whatever has gathered meanwhile is one transaction."""
    ended = False
    while not ended:
        batch = [await kept.get()]
        while not kept.empty():
            batch.append(kept.get_nowait())
        ended = None in batch
        results = [item for item in batch if item is not None]
        if results:
            keeping = asyncio.ensure_future(asyncio.to_thread(store.finish, job.id, results))
            try:
                await asyncio.shield(keeping)
            except asyncio.CancelledError:
                await keeping  # what is being written will be there
                told(results)
                raise
            told(results)


class _Client:
    """Brings rows to the API and waits when it says so."""

    def __init__(self, handler: Handler, patience_s: float) -> None:
        self._handler = handler
        self._patience_s = patience_s
        self._last_answer_s = asyncio.get_running_loop().time()
        """to any row: a row may be put off for long while others fill the queue"""

    async def answer(self, row: Row, text: bytes) -> Result:
        line = parse(text)
        if line.body is None:
            # The job was made from this very line, so the file has changed since.
            error = line.error or LineError("invalid_line", "The line cannot be read.")
            return Result(row.number, State.FAILED, failure(row_id(row), row.custom_id, error))
        reply = await self._ask(row, line.url, line.body)
        state = State.DONE if reply.status == 200 else State.FAILED
        written = result(row_id(row), row.custom_id, reply.status, reply.request_id, reply.body)
        return Result(row.number, state, written)

    async def _ask(self, row: Row, url: str, body: dict[str, Any]) -> Reply:
        now = asyncio.get_running_loop().time
        wait_s = FIRST_WAIT_S
        while (reply := await self._handler(url, body)).status in NOT_NOW:
            error = _error(reply.body)
            quiet_s = now() - self._last_answer_s
            if quiet_s >= self._patience_s or error.get("code") == EngineDeadError.code:
                raise UnavailableError(
                    f"Row {row.number} is put off: {error.get('message', '')}".rstrip(),
                    cure="Results so far are kept: run the same command again to go on.",
                )
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, MAX_WAIT_S)
        self._last_answer_s = now()
        return reply


def raw_lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """(1-based number, offset in bytes, text) of each line that is not blank."""
    start = 0
    with path.open("rb") as file:
        for number, text in enumerate(file, 1):
            if text.strip():
                yield number, start, text
            start += len(text)


def row_id(row: Row) -> str:
    return f"batch_req_{row.number}"


def _error(body: dict[str, Any]) -> dict[str, Any]:
    error = body.get("error")
    return error if isinstance(error, dict) else {"message": str(error)}
