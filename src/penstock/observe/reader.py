"""Logs read back: records by kind, steps joined, what is torn or broken counted and passed over."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from penstock.core.records import (
    KINDS,
    SCHEMA,
    Begin,
    Header,
    Lost,
    Note,
    RequestRecord,
    Steps,
    Stop,
    Telemetry,
)
from penstock.errors import ConfigError
from penstock.observe.segments import by_start

_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(record) for kind, record in KINDS.items()
}
_PREFIX = b'{"t":"'


@dataclass(slots=True)
class Faults:
    """Lines that could not be used."""

    torn: int = 0
    """last lines without an end: the process was killed, or writes just now"""
    broken: int = 0
    unknown: int = 0
    """kinds, or schemas, of another version"""


def records(
    folder: Path, kinds: Collection[str] = KINDS.keys(), faults: Faults | None = None
) -> Iterator[tuple[str, Any]]:
    """(start, record) of these kinds, process by process, each in its order of writing.

    Raises ConfigError when there is no such folder, or nothing in it.
    """
    faults = faults or Faults()
    starts = by_start(folder) if folder.is_dir() else {}
    if not starts:
        what = "holds no segments" if folder.is_dir() else "is no folder"
        raise ConfigError(f"{folder} {what}.", cure="Name the folder that --log-dir gave.")
    for start, paths in starts.items():
        for path in paths:
            with path.open("rb") as file:
                for text in file:
                    record = _read(text, kinds, faults)
                    if record is not None:
                        yield start, record


def _read(text: bytes, kinds: Collection[str], faults: Faults) -> Any:
    if not text.endswith(b"\n"):
        faults.torn += 1
        return None
    end = text.find(b'"', len(_PREFIX))
    kind = text[len(_PREFIX) : end].decode(errors="replace") if text.startswith(_PREFIX) else ""
    if kind not in _DECODERS:
        faults.unknown += bool(kind)
        faults.broken += not kind
        return None
    if kind not in kinds:
        return None
    try:
        record = _DECODERS[kind].decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        faults.broken += 1
        return None
    if isinstance(record, Header) and record.schema != SCHEMA:
        faults.unknown += 1
    return record


@dataclass(frozen=True, slots=True)
class StepRow:
    """One step; times in seconds, `at` its end on the monotonic clock."""

    at: float
    step: int
    step_s: float
    device_s: float
    schedule_s: float
    prefill_tokens: int
    decode_tokens: int
    prefill_rows: int
    running: int
    waiting: int
    held: int
    blocks_free: int
    blocks_cached: int
    blocks_total: int
    more: dict[str, float]


@dataclass(slots=True)
class StepTable:
    """All steps of one engine of one process, in order."""

    rows: list[StepRow] = field(default_factory=list)
    preemptions: int = 0
    leaked_blocks: int = 0
    restarts: int = 0
    _ends: list[float] = field(default_factory=list)

    def add(self, part: Steps) -> None:
        for i, at in enumerate(part.at):
            row = StepRow(
                at,
                part.step[i],
                part.step_us[i] / 1e6,
                part.device_us[i] / 1e6,
                part.schedule_us[i] / 1e6,
                part.prefill_tokens[i],
                part.decode_tokens[i],
                part.prefill_rows[i],
                part.running[i],
                part.waiting[i],
                part.held[i],
                part.blocks_free[i],
                part.blocks_cached[i],
                part.blocks_total,
                {name: values[i] for name, values in part.more.items()},
            )
            self.rows.append(row)
            self._ends.append(at)
        self.preemptions = max(self.preemptions, part.preemptions)
        self.leaked_blocks = max(self.leaked_blocks, part.leaked_blocks)
        self.restarts = max(self.restarts, part.restarts)

    def between(self, begin: float, end: float) -> list[StepRow]:
        """Steps that ended in (begin, end]."""
        return self.rows[bisect_right(self._ends, begin) : bisect_right(self._ends, end)]

    def ending(self, at: float) -> StepRow | None:
        """The first step that ends at this instant or after it."""
        place = bisect_left(self._ends, at)
        return self.rows[place] if place < len(self.rows) else None


@dataclass(slots=True)
class Log:
    """A folder's records in memory, requests in the order in which they came in."""

    headers: dict[str, Header] = field(default_factory=dict)
    """by start; of the first segment that is kept"""
    requests: list[RequestRecord] = field(default_factory=list)
    begins: dict[str, tuple[str, Begin]] = field(default_factory=dict)
    """(start, record) of requests that have not ended"""
    steps: dict[tuple[str, int], StepTable] = field(default_factory=dict)
    """by start and engine"""
    telemetry: dict[str, list[Telemetry]] = field(default_factory=dict)
    notes: list[tuple[str, Note]] = field(default_factory=list)
    lost: list[tuple[str, Lost]] = field(default_factory=list)
    stops: dict[str, Stop] = field(default_factory=dict)
    """by start; one without is alive, or was killed and nobody started since"""
    last_s: dict[str, float] = field(default_factory=dict)
    """by start: monotonic time of the last step, telemetry or note"""
    faults: Faults = field(default_factory=Faults)

    def offset(self, start: str) -> float:
        """Unix time less monotonic time."""
        header = self.headers.get(start)
        return 0.0 if header is None else header.wall_s - header.mono_s

    def received(self, request: RequestRecord) -> float:
        """When it came in, on its process's monotonic clock."""
        return request.received_s - self.offset(request.start)

    def find(self, request_id: str) -> RequestRecord:
        """By its id, the client's id, or an unambiguous beginning. Raises ConfigError."""
        for same in (
            [r for r in self.requests if request_id in (r.id, r.call)],
            [r for r in self.requests if r.id.startswith(request_id)],
        ):
            if len(same) == 1 or (same and len({r.call for r in same}) == 1):
                return same[0]
            if same:
                some = ", ".join(r.id for r in same[:4])
                raise ConfigError(f"{request_id!r} is several requests.", cure=f"Give one: {some}.")
        where = " It began and never ended." if request_id in self.begins else ""
        raise ConfigError(
            f"The log has no finished request {request_id!r}.{where}",
            cure="See `penstock logs tail` for ids.",
        )


def read(folder: Path, kinds: Collection[str] = KINDS.keys()) -> Log:
    """Raises ConfigError as `records` does."""
    log = Log()
    for start, record in records(folder, {"header", *kinds}, log.faults):
        _take(log, start, record)
    log.requests.sort(key=lambda request: request.received_s)
    return log


def _take(log: Log, start: str, record: Any) -> None:
    if isinstance(record, RequestRecord):
        log.begins.pop(record.id, None)
        log.requests.append(record)
    elif isinstance(record, Begin):
        log.begins[record.id] = (start, record)
    elif isinstance(record, Steps):
        log.steps.setdefault((start, record.engine), StepTable()).add(record)
        log.last_s[start] = max(log.last_s.get(start, 0.0), record.at[-1])
    elif isinstance(record, Telemetry):
        log.telemetry.setdefault(start, []).append(record)
        log.last_s[start] = max(log.last_s.get(start, 0.0), record.at)
    elif isinstance(record, Header):
        log.headers.setdefault(start, record)
    elif isinstance(record, Note):
        log.notes.append((start, record))
    elif isinstance(record, Lost):
        log.lost.append((start, record))
    elif isinstance(record, Stop):
        log.stops[start] = record
