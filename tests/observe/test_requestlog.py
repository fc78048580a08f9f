from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from penstock.config import LogConfig
from penstock.core.events import Event
from penstock.core.records import Origin
from penstock.engine.client import EngineStats
from penstock.observe.reader import read
from penstock.observe.requestlog import RequestLog
from penstock.observe.telemetry import Reader
from tests.observe.test_recorder import LIFE, closed, opened

IDENTITY = {"version": "0", "hashes": {"weights": "w"}}


def opened_log(folder: Path, **config: Any) -> RequestLog:
    return RequestLog(LogConfig(log_dir=str(folder), **config), IDENTITY)


def serve_one(log: RequestLog, id: str = "r") -> None:
    origin = Origin(call="c", sends=True)
    log.opened(opened(id, origin=origin))
    events: list[Event] = [replace(event, id=id) if event.id else event for event in LIFE]
    log(events, EngineStats(at=1.0, step=1, prefill_tokens=2, prefill_rows=1))
    log.closed(closed(id))
    log.sent(origin)


def test_all_kinds_reach_the_folder(tmp_path: Path) -> None:
    log = opened_log(tmp_path)
    log.watch(Reader())
    serve_one(log)
    log.note("canary", "all well", run=1)
    log.rejected("queue_full")
    log.rejected("queue_full")
    log.close()
    log.close()
    found = read(tmp_path)
    (request,) = found.requests
    assert (request.id, request.finish, request.start) == ("r", "length", log.start)
    assert found.begins == {}
    notes = {note.kind: note.data for _, note in found.notes}
    assert notes == {"canary": {"run": 1}, "rejected": {"queue_full": 2}}
    assert [row.step for row in found.steps[log.start, 0].rows] == [1]
    assert len(found.telemetry[log.start]) == 1
    assert found.headers[log.start].hashes == {"weights": "w"}
    assert found.stops[log.start].clean
    assert (log.dropped, log.lost_lines, log.failed, log.depth) == (0, 0, None, 0)
    assert log.written_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_a_full_queue_drops_and_says_so(tmp_path: Path) -> None:
    log = opened_log(tmp_path, log_queue=3)
    stuck = threading.Event()
    take = log._recorder.take

    def slow(item: Any) -> None:
        stuck.wait(30)
        take(item)

    log._recorder.take = slow  # type: ignore[method-assign]
    log.opened(opened())
    stats = EngineStats(at=1.0)
    while not log.dropped:  # the thread may take one or two
        log([], stats)
    stuck.set()
    while log.depth:
        pass
    log([], stats)
    serve_end = closed()
    log.closed(serve_end)
    log.close()
    (request,) = read(tmp_path).requests
    assert request.lossy


def test_a_folder_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    log = opened_log(tmp_path / "file" / "logs")
    serve_one(log)
    log.close()
    assert log.failed is not None
    assert log.lost_lines > 0


def test_the_next_start_tells_of_the_last(tmp_path: Path) -> None:
    first = opened_log(tmp_path)
    first.opened(opened())
    first.close()  # a clean end, with a request that nobody ended
    second = opened_log(tmp_path)
    second.close()
    found = read(tmp_path)
    assert list(found.begins) == ["r"]
    assert [note.kind for _, note in found.notes] == []
