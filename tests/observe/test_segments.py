from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.core.records import Begin, Header, Note, Stop
from penstock.observe import segments
from penstock.observe.reader import Faults, read, records
from penstock.observe.segments import Bounds, Segments, by_start, line, new_start, recover


def header(number: int) -> bytes:
    return line(Header(1, "s", number, 100.0, 50.0, "here", 1, "0"))


def note(text: str = "x") -> bytes:
    return line(Note(1.0, "test", text))


def writer(folder: Path, start: str = "20260101T000000-aaaaaa", **bounds: object) -> Segments:
    return Segments(folder, start, Bounds(**bounds), header)  # type: ignore[arg-type]


def test_a_line_names_its_kind_first() -> None:
    assert line(Stop(clean=True)) == b'{"t":"stop","clean":true,"lost":0}\n'


def test_names_sort_by_age() -> None:
    assert new_start(0.0) < new_start(86400.0)
    assert new_start(5.0) != new_start(5.0)


@pytest.mark.parametrize("fsync", ["never", "second", "record"])
def test_written_and_read(tmp_path: Path, fsync: str) -> None:
    made = writer(tmp_path / "new" / "folder", fsync=fsync)
    made.write([note("a"), note("b")])
    made.tick()
    made.close()
    found = read(made.folder)
    assert [n.text for _, n in found.notes] == ["a", "b"]
    assert (found.faults, found.stops["20260101T000000-aaaaaa"].clean) == (Faults(), True)


def test_rotation_and_retention(tmp_path: Path) -> None:
    made = writer(tmp_path, segment_bytes=400, max_bytes=1300)
    for number in range(40):
        made.write([note(f"{number:03d}" * 30)])
    made.close()
    paths = sorted(tmp_path.iterdir())
    assert paths[0].name != "20260101T000000-aaaaaa-000001.jsonl", "the oldest are gone"
    assert sum(path.stat().st_size for path in paths) <= 1300 + 400
    for path in paths:
        assert path.read_bytes().startswith(b'{"t":"header"'), "each can be read alone"
    assert read(tmp_path).notes[-1][1].text == "039" * 30


def test_old_segments_go(tmp_path: Path) -> None:
    old = writer(tmp_path, "20250101T000000-aaaaaa")
    old.write([note()])
    old.close()
    (path,) = tmp_path.iterdir()
    os.utime(path, (1.0, 1.0))
    made = writer(tmp_path)
    made.write([note()])
    made.close()
    assert list(by_start(tmp_path)) == ["20260101T000000-aaaaaa"]


class Disk:
    """os.write that fails when it is told to, after half of the data."""

    def __init__(self) -> None:
        self.full = False
        self.halves = 0
        self.write = os.write

    def __call__(self, fd: int, data: bytes) -> int:
        if not self.full:
            return self.write(fd, data)
        self.halves += 1
        if self.halves == 1:
            return self.write(fd, data[:20])
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_costs_lines_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk()
    monkeypatch.setattr(os, "write", disk)
    monkeypatch.setattr(segments, "RETRY_S", 0.0)
    made = writer(tmp_path)
    made.write([note("before")])
    disk.full = True
    made.write([note("lost"), note("too")])
    assert made.failed is not None
    assert "No space left" in made.failed
    disk.full = False
    made.write([note("after")])
    assert made.failed is None
    made.close()
    assert made.lost_lines == 2
    found = read(tmp_path)
    assert [n.text for _, n in found.notes] == ["before", "after"]
    assert (found.faults.torn, found.faults.broken) == (1, 0)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    made = writer(tmp_path / "file" / "logs")
    made.write([note()])
    made.write([note()])
    assert made.failed is not None
    assert made.lost_lines == 2
    made.close()


KILLED = """
import os, sys
from pathlib import Path
from penstock.core.records import Begin, Header
from penstock.observe.segments import Bounds, Segments, line
made = Segments(Path(sys.argv[1]), "20260101T000000-bbbbbb", Bounds(),
                lambda n: line(Header(1, "s", n, 0, 0, "h", 1, "0")))
made.write([line(Begin("r1", "c", 1.0, 3, 1)), line(Begin("r2", "c", 2.0, 3, 1))])
made.write([b'{"t":"request","id":"r1","call":"c"}\\n', b'{"t":"request","id":"r2","ca'])
print("ready", flush=True)
sys.stdin.read()
"""


def test_what_a_killed_process_left_is_closed_off(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert list(recover(tmp_path)) == [], "it lives"
        process.send_signal(signal.SIGKILL)
        process.wait()
    faults = Faults()
    assert [r for _, r in records(tmp_path, {"lost", "stop"}, faults)] == []
    assert faults.torn == 1
    ((start, stop),) = recover(tmp_path)
    assert (start, stop) == ("20260101T000000-bbbbbb", Stop(clean=False, lost=1))
    assert list(recover(tmp_path)) == [], "once is enough"
    found = read(tmp_path, {"begin", "lost", "stop"})
    assert [lost.id for _, lost in found.lost] == ["r2"]
    assert found.faults.torn == 0


def test_nobody_else_writes_to_a_living_segment(tmp_path: Path) -> None:
    made = writer(tmp_path)
    made.write([line(Begin("r", "c", 1.0, 3, 1))])
    (path,) = tmp_path.iterdir()
    with path.open("rb") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    made.close()
