"""The log of requests, steps and telemetry: a bounded queue, and a thread that writes.

Whoever serves only appends to a deque. The thread wakes when a request begins or ends, and
otherwise TICKS_S apart; all work on records happens there. It never makes anybody wait: what it
cannot take is counted as dropped, what it cannot write as lost, and serving goes on.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.config import LogConfig
from penstock.core.events import Event
from penstock.core.records import SCHEMA, Header, Note, Origin
from penstock.observe.assemble import Closed, Gap, Opened, Sent
from penstock.observe.recorder import Item, Keep, Recorder
from penstock.observe.segments import Bounds, Segments, line, new_start, recover
from penstock.observe.telemetry import Reader

if TYPE_CHECKING:
    from penstock.engine.client import EngineStats

log = logging.getLogger(__name__)

TICK_S = 0.25
JOIN_S = 10.0


class RequestLog:
    """Written from the serving thread, an engine client's sink among others (`subscribe`)."""

    def __init__(
        self,
        config: LogConfig,
        identity: Mapping[str, Any],
        decode: Callable[[list[int], bool], str] | None = None,
        reader: Reader | None = None,
    ) -> None:
        """identity: the fields of `Header` that describe model and config. decode: the
        tokenizer's, to check texts against ids. Raises nothing for a folder that cannot be
        written: see `failed`."""
        assert config.log_dir is not None
        self.folder = Path(config.log_dir)
        self.start = new_start()
        self._config, self._identity = config, dict(identity)
        self._offset_s = time.time() - time.monotonic()
        keep = Keep(config.log_sample, config.log_redact, config.log_steps)
        self._recorder = Recorder(self.start, self._offset_s, keep, decode)
        bounds = Bounds(
            config.log_segment_bytes,
            config.log_max_bytes,
            config.log_max_age_s,
            config.log_fsync,
        )
        self._segments = Segments(self.folder, self.start, bounds, self._header)
        self._reader = reader
        self._next_telemetry_s = 0.0
        self._queue: deque[Item | Note] = deque()
        self._gap = False
        self._rejected: dict[str, int] = {}
        self._wake = threading.Event()
        self._closing = False
        self._warned: str | None = None
        self.dropped = 0
        """items that the queue had no place for"""
        self.cpu_s = 0.0
        """CPU time of the log's thread"""
        self._thread = threading.Thread(target=self._run, name="penstock-log", daemon=True)
        self._thread.start()

    # Of the serving thread

    def __call__(self, events: list[Event], stats: EngineStats) -> None:
        """An engine's step."""
        self._put((events, stats))

    def opened(self, request: Opened) -> None:
        self._put(request)
        self._wake.set()

    def closed(self, request: Closed) -> None:
        self._put(request)
        self._wake.set()

    def sent(self, origin: Origin) -> None:
        """The last byte of the reply was handed to the socket."""
        self._put(Sent(origin, time.monotonic()))
        self._wake.set()

    def note(self, kind: str, text: str, **data: Any) -> None:
        """Something that whoever reads the log must know."""
        self._put(Note(round(time.monotonic(), 6), kind, text, data))
        self._wake.set()

    def rejected(self, code: str) -> None:
        """A request was turned away at the door; a note a tick says how many."""
        self._rejected[code] = self._rejected.get(code, 0) + 1

    def watch(self, reader: Reader) -> None:
        """Where telemetry comes from."""
        self._reader = reader

    def _put(self, item: Item | Note) -> None:
        """Steps are dropped when there is no place; what begins and ends requests never is."""
        if isinstance(item, tuple) and len(self._queue) >= self._config.log_queue:
            self.dropped += 1
            self._gap = True
            return
        if self._gap:
            self._gap = False
            self._queue.append(Gap())
        self._queue.append(item)

    @property
    def failed(self) -> str | None:
        """Why lines are lost just now."""
        return self._segments.failed

    @property
    def lost_lines(self) -> int:
        return self._segments.lost_lines

    @property
    def written_bytes(self) -> int:
        return self._segments.written_bytes

    @property
    def depth(self) -> int:
        """Items that wait for the thread."""
        return len(self._queue)

    def close(self) -> None:
        """Write what is there and end the thread. Calling it again does nothing."""
        self._closing = True
        self._wake.set()
        self._thread.join(JOIN_S)

    # Of the log's own thread

    def _run(self) -> None:
        self._recover()
        while True:
            closing = self._closing
            self._wake.wait(TICK_S)
            self._wake.clear()
            try:
                self._turn(closing)
            except Exception:  # a fault here must not end the log, nor anything else
                log.exception("the request log met a fault")
            self.cpu_s = time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID)
            if closing:
                self._segments.close()
                return

    def _recover(self) -> None:
        try:
            for start, stop in recover(self.folder):
                text = f"{start} ended without a stop; {stop.lost} requests were in flight"
                log.warning("log %s: %s", self.folder, text)
                self.note("recovered", text, start=start, lost=stop.lost)
        except OSError as error:
            log.warning("log %s: earlier segments cannot be repaired: %s", self.folder, error)

    def _turn(self, closing: bool) -> None:
        if self._rejected:
            found, self._rejected = self._rejected, {}
            text = f"{sum(found.values())} requests were turned away"
            self._queue.append(Note(round(time.monotonic(), 6), "rejected", text, dict(found)))
        recorder, queue = self._recorder, self._queue
        while queue:
            item = queue.popleft()
            if isinstance(item, Note):
                recorder.lines.append(line(item))
            else:
                recorder.take(item)
        now = time.monotonic()
        recorder.finish(now) if closing else recorder.tick(now)
        self._telemetry(now)
        lines, recorder.lines = recorder.lines, []
        self._segments.write(lines)
        self._segments.tick()
        self._warn()

    def _telemetry(self, now: float) -> None:
        every_s = self._config.log_telemetry_s
        if self._reader is not None and every_s and now >= self._next_telemetry_s:
            self._next_telemetry_s = now + every_s
            found = self._reader.read(self._recorder.num_open, self._recorder.last_stats)
            self._recorder.lines.append(line(found))

    def _warn(self) -> None:
        if self._segments.failed != self._warned:
            self._warned = self._segments.failed
            if self._warned:
                log.warning("request log: %s; requests are served without it", self._warned)
            else:
                log.warning("request log: %s can be written again", self.folder)

    def _header(self, number: int) -> bytes:
        head = Header(
            SCHEMA,
            self.start,
            number,
            self._offset_s + time.monotonic(),
            round(time.monotonic(), 6),
            socket.gethostname(),
            os.getpid(),
            **self._identity,
        )
        return line(head)
