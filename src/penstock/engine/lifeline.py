"""What ends and is cleaned up even when a process is killed: children, and folders of sockets."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

PREFIX, LOCK = "penstock-", "lock"
PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Let the system kill this process when its parent (exactly: the thread that started it) ends,
    also while it is stopped. Linux only: elsewhere somebody has to look at the parent. Exits at
    once when the parent is gone already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


class SocketFolder:
    """A folder that nobody else can enter. Its owner holds a lock in it as long as it lives, so
    that the next to make one can tell which folders are left over."""

    def __init__(self) -> None:
        """Raises OSError."""
        _sweep(Path(tempfile.gettempdir()))
        self.path = tempfile.mkdtemp(prefix=PREFIX)
        unlocked = os.path.join(self.path, "unlocked")
        self._lock = os.open(unlocked, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        os.rename(unlocked, os.path.join(self.path, LOCK))
        self._open = True

    def remove(self) -> None:
        """Sockets that are connected stay so. May be called twice."""
        if self._open:
            self._open = False
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)


def _sweep(parent: Path) -> None:
    for path in parent.glob(f"{PREFIX}*/{LOCK}"):
        with suppress(OSError):  # somebody else's
            lock = os.open(path, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path.parent, ignore_errors=True)
            finally:
                os.close(lock)
