"""One life of an engine process, seen from its parent.

A thread of its own owns all of it: it makes the folder of the sockets, starts the process, reads
what it says, kills it when it goes silent or its step is stuck, and cleans up when it has ended.
What the engine says and how it ended is told on the event loop, the end last.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Lock, Thread
from typing import Any

import msgspec
import psutil
import zmq

from penstock.config import Config
from penstock.engine import wire
from penstock.engine.client import ModelInfo
from penstock.engine.engine import Message
from penstock.engine.lifeline import SocketFolder

PROGRAM = (sys.executable, "-m", "penstock.engine.process")
POLL_MS = 200
SILENT_S = 5.0
"""A process that has said nothing for this long is stopped or stuck."""
START_SILENT_S = 60.0
"""The same until it is ready, for importing libraries can hold the interpreter for long; but not
for one that the system says is stopped."""
CLOSE_S = 5.0
"""How long an engine may take to end before it is killed."""


class Child:
    def __init__(
        self,
        config: Config,
        index: int,
        context: zmq.Context[zmq.Socket[bytes]],
        on_message: Callable[[Child, wire.Upward], None],
        on_end: Callable[[Child, str], None],
        program: Sequence[str] = PROGRAM,
    ) -> None:
        """on_message(child, what), on_end(child, why in words): called on the running loop."""
        self.beat = wire.Beat()
        """the latest"""
        self.ready = False
        self._beats = False
        self._config = config
        self._index = index
        self._context = context
        self._on_message = on_message
        self._on_end = on_end
        self._program = program
        self._loop = asyncio.get_running_loop()
        self._process: subprocess.Popen[bytes] | None = None
        self._down: zmq.Socket[bytes] | None = None
        self._lock = Lock()
        """of `_down`: sockets are not for two threads at once"""
        self._killed = False
        self._why = ""
        self._thread = Thread(target=self._live, name=f"penstock-engine-{index}", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def send(self, message: Message) -> None:
        """Once it is ready; what a dead process does not read is lost."""
        with self._lock, suppress(zmq.Again):
            if self._down is not None:
                self._down.send(wire.encode_message(message), zmq.NOBLOCK)

    def kill(self, why: str = "") -> None:
        self._killed = True
        self._why = self._why or why
        if self._process is not None:
            self._process.kill()

    async def close(self) -> None:
        """End the process; on return it is gone with all that belonged to it."""
        if self.ready:
            self.send(None)
            await asyncio.to_thread(self._thread.join, CLOSE_S)
        self.kill()
        await asyncio.to_thread(self._thread.join)

    def _live(self) -> None:
        try:
            self._folder = SocketFolder()
            try:
                why = self._run(self._folder.path)
            finally:
                self._folder.remove()
        except (OSError, zmq.ZMQError) as error:
            why = f"could not be started: {error}"
        self._tell(self._on_end, self, why)

    def _run(self, folder: str) -> str:
        """How the process ended, in words."""
        up, down = self._context.socket(zmq.PULL), self._context.socket(zmq.PUSH)
        try:
            for socket, name in ((up, "up"), (down, "down")):
                socket.setsockopt(zmq.SNDHWM if socket is down else zmq.RCVHWM, 0)
                socket.bind(f"ipc://{folder}/{name}")
            command = [*self._program, folder, str(os.getpid()), str(self._index)]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
            self._converse(self._process, up, down)
        finally:
            with self._lock:
                self._down = None
                down.close(linger=0)
            up.close(linger=0)
        code = self._process.wait()
        ended = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return self._why or f"ended ({ended})"

    def _greet(self, down: zmq.Socket[bytes]) -> None:
        """Send the config; whoever has read it is connected for all that follows."""
        down.send(msgspec.msgpack.encode(self._config))
        with self._lock:
            self._down = down

    def _runs(self, process: subprocess.Popen[bytes]) -> bool:
        if self._killed:
            process.kill()
        return process.poll() is None

    def _converse(
        self, process: subprocess.Popen[bytes], up: zmq.Socket[bytes], down: zmq.Socket[bytes]
    ) -> None:
        """Until the process is gone and has been heard to the end."""
        poller = zmq.Poller()
        poller.register(up, zmq.POLLIN)
        poller.register(down, zmq.POLLOUT)
        silent_ms = 0  # counted here, so that a parent that was stopped itself blames nobody
        while True:
            found = dict(poller.poll(POLL_MS))
            if down in found:
                self._greet(down)
                poller.unregister(down)
            if up in found:
                silent_ms = 0
                self._hear(wire.decode_upward(up.recv()))
            if found:
                continue
            if not self._runs(process):
                return
            silent_ms += POLL_MS
            self._mind(process.pid, silent_ms / 1000)

    def _mind(self, pid: int, silent_s: float) -> None:
        """Kill it when it is silent for too long."""
        patient = not self.ready and silent_s <= START_SILENT_S and not _stopped(pid)
        if silent_s > SILENT_S and not patient:
            self.kill(f"was silent for {silent_s:.1f} s ({self.beat.phase}) and was killed")

    def _hear(self, message: wire.Upward) -> None:
        if not isinstance(message, wire.Beat):
            self.ready = self.ready or isinstance(message, ModelInfo)
            if self.ready and self._beats:  # all sockets are connected: leave nothing when killed
                self._folder.remove()
            self._tell(self._on_message, self, message)
            return
        self.beat, self._beats = message, True
        if message.limit_s and message.age_s > message.limit_s:
            self.kill(
                f"was stuck {message.phase} for {message.age_s:.1f} s (limit"
                f" {message.limit_s:.1f} s) and was killed"
            )

    def _tell(self, function: Callable[..., None], *args: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody wants to know
            self._loop.call_soon_threadsafe(function, *args)


def _stopped(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.NoSuchProcess:
        return False
