"""A thread of an engine process that tells its parent that it lives and what it does.

A process that is stopped, or whose interpreter is stuck, goes silent; one whose step hangs says
so. The same thread ends the process, whatever it is doing, when the parent is gone.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from threading import Event, Thread

import zmq

from penstock.engine import wire
from penstock.engine.activity import Activity

BEAT_S = 0.5


class Pulse:
    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], folder: str, parent: int) -> None:
        """folder: where the parent's sockets are; removed when it cannot do that itself."""
        self.activity = Activity()
        self._context = context
        self._folder = folder
        self._parent = parent
        self._stop = Event()
        self._thread = Thread(target=self._beat, name="penstock-pulse", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        up = self._context.socket(zmq.PUSH)
        up.connect(f"ipc://{self._folder}/up")
        last, beats = 0.0, 0
        while True:
            if os.getppid() != self._parent:
                shutil.rmtree(self._folder, ignore_errors=True)
                os._exit(1)  # nobody is left to answer, and the working thread may be stuck
            phase, since, limit_s = self.activity.now
            last, beats = since, beats + 1 if since == last else 1
            # No more than its beats: a process that was stopped for a while is not stuck.
            age_s = min(time.monotonic() - since, beats * BEAT_S)
            with suppress(zmq.Again):  # the parent is slow; waiting would be blind to its end
                up.send(wire.encode_beat(wire.Beat(phase, age_s, limit_s)), zmq.NOBLOCK)
            if self._stop.wait(BEAT_S):
                break
        up.close(linger=0)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
