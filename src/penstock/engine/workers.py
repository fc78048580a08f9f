"""The other processes of a group, as the leader sees them: started, fed with plans, watched, ended.

A thread looks at each of them: one that ended, or whose heart stands still, breaks the group. Then
all are killed, and whoever waits for them learns the cause.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from threading import Event, Lock, Thread

from penstock.config import Config
from penstock.core.plan import StepPlan
from penstock.engine.frames import STOP, Room, Task, Word, decode, encode
from penstock.errors import EngineError, PenstockError, from_dict
from penstock.parallel.meeting import World

LOOK_S = 0.1
"""How often the watcher looks."""
SILENT_S = 3.0
"""How long a heart may stand still."""
SILENT_AT_START_S = 60.0
"""The same while libraries are loaded, which can hold up every thread of a process."""
CLOSE_S = 5.0
"""How long workers may take to end before they are killed."""


class Workers:
    def __init__(self, config: Config, index: int = 0) -> None:
        """Start the processes. config: with a local checkpoint folder; index: of the engine."""
        engine = config.engine
        self._world = World(
            engine.tensor_parallel_size,
            engine.pipeline_parallel_size,
            engine.prefill_context_parallel_size,
        )
        self.seat = self._world.seat(0)
        """the leader's own"""
        self._pulses = self.seat.pulses()
        self._lines: list[Connection] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._cause: PenstockError | None = None
        self._lock = Lock()
        self._closing = Event()
        self._starting = True
        self._watcher = Thread(target=self._watch, name="penstock-watch", daemon=True)
        try:
            for number in range(1, self._world.processes):
                self._start(Task(config, index, self._world.seat(number)))
            self._watcher.start()
        except BaseException:
            self.close()
            raise

    def _start(self, task: Task) -> None:
        ours, theirs = Pipe()
        fd = theirs.fileno()
        command = [sys.executable, "-m", "penstock.engine.worker", str(fd), str(os.getpid())]
        with theirs:
            self._processes.append(
                subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=(fd, *task.seat.fds))
            )
        self._lines.append(ours)
        ours.send_bytes(encode(task))

    @property
    def pids(self) -> list[int]:
        """Of ranks 1, 2 …"""
        return [process.pid for process in self._processes]

    def broken(self) -> bool:
        return self._cause is not None

    def check(self) -> None:
        """Raises EngineError with the cause when the group is broken."""
        if self._cause is not None:
            raise self._cause

    def loaded(self) -> list[Word]:
        """Wait until each has its weights. Raises whatever a worker failed with."""
        return [self._hear(line) for line in self._lines]

    def settle(self, room: Room) -> None:
        """Tell all what the leader decided; they connect next."""
        self._send(encode(room))

    def ready(self) -> None:
        """Wait until each can run plans; from now on hearts are watched closely. Raises."""
        for line in self._lines:
            self._hear(line)
        self._starting = False

    def send(self, plan: StepPlan) -> None:
        """Raises EngineError when the group is broken."""
        self._send(encode(plan))

    def _send(self, frame: bytes) -> None:
        try:
            for line in self._lines:
                line.send_bytes(frame)
        except OSError:
            self._await_cause()

    def _hear(self, line: Connection) -> Word:
        try:
            while not line.poll(LOOK_S):
                self.check()
            return decode(line.recv_bytes(), type=Word).checked()
        except (EOFError, OSError):
            self._await_cause()
            raise AssertionError("unreachable") from None

    def _await_cause(self) -> None:
        """A pipe broke: its process ends, which the watcher sees in a moment."""
        deadline = time.monotonic() + CLOSE_S
        while not self.broken() and time.monotonic() < deadline:
            time.sleep(LOOK_S / 10)
        self.check()
        raise EngineError("A worker closed its pipe, and lives on.")

    # Watching

    def _watch(self) -> None:
        beats = [0] * len(self._processes)
        since = [time.monotonic()] * len(beats)
        last = time.monotonic()
        while not self._closing.wait(LOOK_S):
            now = time.monotonic()
            late = now - last > 1.0  # this process stood still: it cannot judge others
            last = now
            for i, process in enumerate(self._processes):
                beat = self._pulses[2 + i]
                if beat != beats[i] or late:
                    beats[i], since[i] = beat, now
                silent_s = now - since[i]
                if process.poll() is not None:
                    words = _last_words(self._lines[i])
                    why = f"Rank {i + 1} ended ({_ending(process.returncode)})"
                    return self.abandon(why, words)
                if silent_s > (SILENT_AT_START_S if self._starting else SILENT_S):
                    return self.abandon(f"Rank {i + 1} hangs: no sign of life for {silent_s:.1f} s")

    def abandon(self, why: str, words: PenstockError | None = None) -> None:
        """Break the group: everybody stops waiting, workers are killed. The first cause counts.

        words: the error that a worker ended with; while starting it is the cause itself.
        """
        with self._lock:
            if self._cause is not None or self._closing.is_set():
                return
            self._cause = (
                words
                if words and self._starting
                else EngineError(
                    f"{why}, and with it its group of {self._world.processes} ranks."
                    + (f" {words}" if words else ""),
                    cure="Restart the engine.",
                )
            )
            self._pulses[0] = 1
        for process in self._processes:
            process.kill()

    def close(self) -> None:
        """End all processes. May be called twice, and on a broken group."""
        self._closing.set()
        if self._watcher.is_alive():
            self._watcher.join()
        for line in self._lines:
            with suppress(OSError):
                line.send_bytes(STOP)
        deadline = time.monotonic() + CLOSE_S
        for process in self._processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for line in self._lines:
            line.close()
        self._world.close()


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _last_words(line: Connection) -> PenstockError | None:
    with suppress(OSError, EOFError):
        while line.poll():
            word = decode(line.recv_bytes(), type=Word)
            if word.error is not None:
                return from_dict(word.error)
    return None
