"""An interpreter for tests that has imported torch and the engine already.

`ForkServer.python` is a program that takes `-m MODULE ARGUMENTS` as Python does. It hands them,
with its open files, to a server, which forks a process for them: a start costs milliseconds where
imports would take seconds of processor time. The process runs the module as `__main__`, takes this
program for its Python, and ends with whoever started it. Signals reach the program alone, so this
is not for tests that stop processes.

`python -m tests.forks SOCKET` is the server.
"""

from __future__ import annotations

import fcntl
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parent.parent
PRELOAD = ("penstock.engine.build", "penstock.layers.native", "penstock.models.qwen3")
MOST_FILES, HIGH = 200, 1000
"""Files of one process, and numbers above those that they have."""
MESSAGE = 1 << 16

CLIENT = """\
#!{python} -SEs
import json, os, socket, sys
line = socket.socket(socket.AF_UNIX)
line.connect({path!r})
numbers = []
for number in map(int, os.listdir("/proc/self/fd")):
    try:
        os.fstat(number)
    except OSError:
        continue
    if number != line.fileno():
        numbers.append(number)
asked = [os.path.abspath(sys.argv[0]), os.getppid(), sys.argv[1:], numbers]
socket.send_fds(line, [json.dumps(asked).encode()], numbers)
parent = os.getppid()
line.settimeout(0.5)
code = None
while code is None and os.getppid() == parent:
    try:
        code = line.recv(8)
    except TimeoutError:
        pass
sys.stdout = sys.stderr = None
os._exit(int(code or 1))
"""


class ForkServer:
    """The server, while the block lasts."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="forks-")
        path = os.path.join(self._folder.name, "socket")
        self.python = os.path.join(self._folder.name, "python")
        Path(self.python).write_text(CLIENT.format(python=sys.executable, path=path))
        os.chmod(self.python, 0o700)
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "tests.forks", path, str(theirs.fileno())]
        self._process = subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()])
        theirs.close()
        self._line = ours
        assert ours.recv(8) == b"ready"

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, *failure: object) -> None:
        self._line.close()
        self._process.wait(10)
        self._folder.cleanup()


def serve(path: str, fd: int) -> None:
    """Fork until the other end of `fd` is closed."""
    for module in PRELOAD:
        __import__(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nannies need no burial
    owner = socket.socket(fileno=fd)
    door = socket.socket(socket.AF_UNIX)
    door.bind(path)
    door.listen(64)
    owner.send(b"ready")
    while True:
        ready, _, _ = select.select([door, owner], [], [])
        if owner in ready:
            return
        line, _ = door.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os._exit(mind(line))
        line.close()


def mind(line: socket.socket) -> int:
    """Fork the process, tell how it ended, and end it when nobody listens any more."""
    text, files, _, _ = socket.recv_fds(line, MESSAGE, MOST_FILES)
    python, parent, arguments, numbers = json.loads(text)
    child = os.fork()
    if child == 0:
        become(python, parent, arguments, numbers, files)
    os.closerange(3, line.fileno())
    os.closerange(line.fileno() + 1, HIGH)
    ended = os.pidfd_open(child)
    select.select([line, ended], [], [])
    ready, _, _ = select.select([ended], [], [], 0)
    if not ready:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    with suppress(BrokenPipeError):
        line.send(str(code % 256).encode())
    return 0


def become(
    python: str, parent: int, arguments: list[str], numbers: list[int], files: list[int]
) -> None:
    """Take the place of the client, and run its module."""
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, HIGH) for fd in files]
    os.closerange(3, HIGH)
    for number, fd in zip(numbers, high, strict=True):
        os.dup2(fd, number)
        os.close(fd)
    sys.executable = python
    os.getppid = lambda: parent
    flag, module, *rest = arguments
    assert flag == "-m"
    sys.argv = [module, *rest]
    code = 1
    try:
        runpy.run_module(module, run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    assert threading.active_count() == 1
    serve(sys.argv[1], int(sys.argv[2]))
