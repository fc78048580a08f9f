from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from penstock.engine.lifeline import SocketFolder

CHILD = """
import os, sys, time
from penstock.engine.lifeline import die_with
die_with(os.getppid() if sys.argv[1] == "right" else 1)
print(os.getpid(), flush=True)
time.sleep(60)
"""
PARENT = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {CHILD!r}, "right"])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of a parent's end")
def test_a_stopped_child_ends_with_its_parent() -> None:
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        child.send_signal(signal.SIGSTOP)
        parent.kill()
    child.wait(timeout=5)


def test_a_child_that_comes_too_late_ends() -> None:
    done = subprocess.run([sys.executable, "-c", CHILD, "wrong"], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")


OWNER = """
import tempfile, sys
tempfile.tempdir = sys.argv[1]
from penstock.engine.lifeline import SocketFolder
folder = SocketFolder()
print(folder.path, flush=True)
sys.stdin.read()
"""


def test_what_a_killed_owner_left_goes_with_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "penstock-notes").mkdir()  # not one of ours
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as owner:
        path = Path(owner.stdout.readline().strip())
        mine = SocketFolder()
        assert path.is_dir(), "its owner lives"
        owner.kill()
    again = SocketFolder()
    assert not path.exists()
    assert Path(mine.path).is_dir()
    assert os.stat(mine.path).st_mode & 0o077 == 0
    for folder in (mine, mine, again):
        folder.remove()
    assert [left.name for left in tmp_path.iterdir()] == ["penstock-notes"]
