"""Append-only segments of JSON lines: written whole, rotated, kept within bounds, repaired.

    <start>-<number>.jsonl      start: time and a random part, so that names sort by age

Whoever writes holds a lock (flock) on its current segment, by which others know that it lives. A
line counts once its newline is there: a kill leaves at most the last line torn, which the next
start closes off.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from penstock.core.records import KINDS, Lost, Stop

_encode = msgspec.json.Encoder().encode
_TAGS = {kind: f'{{"t":"{tag}",'.encode() for tag, kind in KINDS.items()}
RETRY_S = 5.0
"""How long a folder that refused a write is left alone."""


def line(record: object) -> bytes:
    """A record as a line; its kind comes first."""
    return _TAGS[type(record)] + _encode(record)[1:] + b"\n"


def new_start(now: float | None = None) -> str:
    """Name of a process's segments: UTC to the second, and 6 random digits."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now))
    return f"{stamp}-{secrets.token_hex(3)}"


@dataclass(frozen=True, slots=True)
class Bounds:
    """When to begin a new segment, and what to keep."""

    segment_bytes: int = 64 * 2**20
    max_bytes: int = 4 * 2**30
    """of all segments in the folder, other processes' included"""
    max_age_s: float = 30 * 86400.0
    fsync: str = "second"
    """never, second, or record (before the next one is written)"""


class Segments:
    """One process's segments. Used by one thread. No method raises OSError: `failed` has the cause
    while lines are lost, and writing is tried again every RETRY_S."""

    def __init__(
        self, folder: Path, start: str, bounds: Bounds, header: Callable[[int], bytes]
    ) -> None:
        """header: the first line of segment n."""
        self.folder, self.start = folder, start
        self._bounds, self._header = bounds, header
        self._fd = -1
        self._number = 0
        self._size = 0
        self._dirty = False
        self._synced_s = 0.0
        self._retry_s = 0.0
        self.failed: str | None = None
        self.written_bytes = 0
        self.lost_lines = 0

    def write(self, lines: list[bytes]) -> None:
        """Append whole lines."""
        if not lines:
            return
        try:
            self._append(lines)
        except OSError as error:
            self._give_up(error)
            self.lost_lines += len(lines)

    def _append(self, lines: list[bytes]) -> None:
        if self.failed is not None and time.monotonic() < self._retry_s:
            self.lost_lines += len(lines)
            return
        if self._fd < 0 or self._size >= self._bounds.segment_bytes:
            self._rotate()
        data = b"".join(lines)
        _write_all(self._fd, data)
        self.failed = None
        self._size += len(data)
        self.written_bytes += len(data)
        self._dirty = True
        if self._bounds.fsync == "record":
            self._sync()

    def _give_up(self, error: OSError) -> None:
        """The next try begins a segment of its own: this one may end in half a line."""
        self.failed = f"{self.folder}: {error.strerror or error}"
        self._retry_s = time.monotonic() + RETRY_S
        self._close_file()

    def _rotate(self) -> None:
        self._close_file()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._number += 1
        path = self.folder / f"{self.start}-{self._number:06d}.jsonl"
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o640)
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        head = self._header(self._number)
        _write_all(self._fd, head)
        self._size = len(head)
        self.written_bytes += len(head)
        self._retain(path)

    def _retain(self, current: Path) -> None:
        """Delete what is too old, and the oldest of what is too much."""
        found = [(entry, entry.stat()) for entry in _segments(self.folder) if entry != current]
        found.sort(key=lambda item: item[1].st_mtime)
        total = sum(stat.st_size for _, stat in found) + self._bounds.segment_bytes
        for path, stat in found:
            old = time.time() - stat.st_mtime > self._bounds.max_age_s
            if not old and total <= self._bounds.max_bytes:
                break
            path.unlink(missing_ok=True)
            total -= stat.st_size

    def tick(self) -> None:
        """To be called a few times a second."""
        if (
            self._dirty
            and self._bounds.fsync == "second"
            and time.monotonic() > self._synced_s + 1.0
        ):
            try:
                self._sync()
            except OSError as error:
                self._give_up(error)

    def _sync(self) -> None:
        os.fsync(self._fd)
        self._dirty = False
        self._synced_s = time.monotonic()

    def _close_file(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def close(self) -> None:
        """The process ends on its own will."""
        if self._fd >= 0:
            self.write([line(Stop(clean=True))])
        if self._fd >= 0 and self._bounds.fsync != "never":
            try:
                self._sync()
            except OSError as error:
                self._give_up(error)
        self._close_file()


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*-??????.jsonl"))


def by_start(folder: Path) -> dict[str, list[Path]]:
    """Segments by the process that wrote them, oldest first."""
    found: dict[str, list[Path]] = {}
    for path in _segments(folder):
        found.setdefault(path.stem[:-7], []).append(path)
    return found


def recover(folder: Path) -> Iterator[tuple[str, Stop]]:
    """Close off what processes left behind that did not end by themselves: the torn line gets its
    newline, every request in flight a `lost` line, and a `stop` line ends it.

    Yields (start, stop line) of each. Raises OSError.
    """
    for start, paths in by_start(folder).items():
        with paths[-1].open("ab+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue  # it lives
            torn, closed = _ending(paths[-1])
            if closed:
                continue
            lost = _in_flight(paths)
            stop = Stop(clean=False, lost=len(lost))
            repair = b"\n" if torn else b""
            file.write(repair + b"".join(map(line, lost)) + line(stop))
        yield start, stop


def _ending(path: Path) -> tuple[bool, bool]:
    """(the last line is torn, it is a stop line)"""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 4096))
        tail = file.read()
    last = tail.rstrip(b"\n").rpartition(b"\n")[2]
    return not tail.endswith(b"\n") and bool(tail), last.startswith(_TAGS[Stop])


def _in_flight(paths: list[Path]) -> list[Lost]:
    """Requests that begin in these segments and do not end."""
    begun: dict[str, float] = {}
    for path in paths:
        with path.open("rb") as file:
            for text in file:
                if not text.endswith(b"\n"):
                    continue  # torn: it does not count
                if text.startswith(b'{"t":"begin",'):
                    data = msgspec.json.decode(text)
                    begun[data["id"]] = data["received_s"]
                elif text.startswith(b'{"t":"request",'):
                    # The id stands first: the rest, with all its tokens, is not read.
                    begun.pop(
                        msgspec.json.decode(text[: text.index(b'",', 20) + 1] + b"}")["id"], None
                    )
    return [Lost(request_id, received) for request_id, received in begun.items()]
