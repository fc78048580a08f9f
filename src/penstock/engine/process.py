"""An engine in a process of its own, and the client that talks to it over ZeroMQ.

The child is started as `python -m penstock.engine.process ADDRESS`, gets its config as the first
frame, and ends when it is told to, or when its parent is gone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from threading import Thread

import msgspec
import zmq

from penstock.config import Config
from penstock.core.events import Event
from penstock.core.request import FinishReason, Submission
from penstock.engine import wire
from penstock.engine.client import EngineStats, EventSink, ModelInfo
from penstock.engine.clock import MonotonicClock
from penstock.engine.engine import Message
from penstock.engine.mailbox import Mailbox, Mailboxes
from penstock.errors import EngineDeadError, EngineError, PenstockError, from_dict

log = logging.getLogger(__name__)

POLL_MS = 200
"""How often either side looks whether the other is alive."""
CLOSE_S = 5.0
"""How long an engine may take to end before it is killed."""


class ProcessClient:
    """EngineClient over another process. All methods are called from one event loop."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._boxes = Mailboxes(self.abort)
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: Thread | None = None
        self._ready: asyncio.Future[ModelInfo] | None = None
        self._closing = False
        self._last_words = ""

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def start(self) -> ModelInfo:
        self._loop = asyncio.get_running_loop()
        self._ready = self._loop.create_future()
        self._context = zmq.Context()
        self._folder = tempfile.mkdtemp(prefix="penstock-")  # 0700: nobody else can connect
        self._down = self._context.socket(zmq.PUSH)
        address = f"ipc://{self._folder}"
        up = self._context.socket(zmq.PULL)
        for socket, name in ((self._down, "down"), (up, "up")):
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.SNDHWM if name == "down" else zmq.RCVHWM, 0)
            socket.bind(f"{address}/{name}")
        command = [sys.executable, "-m", "penstock.engine.process", address, str(os.getpid())]
        self._process = await asyncio.to_thread(subprocess.Popen, command, stdin=subprocess.DEVNULL)
        self._down.send(msgspec.msgpack.encode(self._config))
        self._reader = Thread(target=self._read, args=(up,), name="penstock-reader", daemon=True)
        self._reader.start()
        return await self._ready

    def _read(self, up: zmq.Socket[bytes]) -> None:
        """In a thread: frames from the engine to the event loop, until the engine is gone."""
        assert self._process is not None
        while True:
            if up.poll(POLL_MS):
                message = wire.decode_upward(up.recv())
                self._loop.call_soon_threadsafe(self._take_in, message)
            elif self._process.poll() is not None:
                break
        up.close()
        code = self._process.returncode
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._bury, code)

    def _take_in(self, message: wire.Upward) -> None:
        assert self._ready is not None
        if isinstance(message, tuple):
            self._boxes.deliver(*message)
        elif isinstance(message, ModelInfo):
            self._ready.set_result(message)
        elif self._ready.done():
            self._last_words = f" {message['message']}"
        else:
            self._ready.set_exception(from_dict(message))

    def _bury(self, code: int) -> None:
        why = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        error = EngineDeadError(
            f"The engine process ended ({why}).{self._last_words}",
            cure="Restart the server.",
            retry_after_s=10,
        )
        if not self._closing:
            log.error("%s", error)
        self._boxes.bury(error)
        assert self._ready is not None
        if not self._ready.done():
            self._ready.set_exception(error)

    def _send(self, message: Message) -> None:
        if not self._closing:
            with suppress(zmq.Again):  # nobody is left to read it: `_bury` tells the requests
                self._down.send(wire.encode_message(message), zmq.NOBLOCK)

    def submit(self, submissions: list[Submission]) -> list[Mailbox]:
        boxes = self._boxes.open(submissions)
        self._send(submissions)
        return boxes

    def abort(self, ids: list[str], reason: FinishReason = FinishReason.ABORT) -> None:
        self._send((ids, reason))

    def subscribe(self, sink: EventSink) -> None:
        self._boxes.subscribe(sink)

    def stats(self) -> EngineStats:
        return self._boxes.stats

    def check_health(self, stuck_after_s: float) -> None:
        self._boxes.check_health(stuck_after_s)

    async def close(self) -> None:
        """End the engine process and give back sockets and files. May be called twice."""
        if self._closing or self._process is None:
            return
        self._send(None)
        self._closing = True
        try:
            await asyncio.to_thread(self._process.wait, CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
        assert self._reader is not None
        await asyncio.to_thread(self._reader.join)
        self._down.close()
        self._context.term()
        shutil.rmtree(self._folder, ignore_errors=True)


class SocketInbox:
    def __init__(self, socket: zmq.Socket[bytes], parent: int) -> None:
        self._socket = socket
        self._parent = parent

    def get(self, timeout_s: float) -> list[Message]:
        if os.getppid() != self._parent:
            return [None]
        messages: list[Message] = []
        if timeout_s and not self._socket.poll(min(int(timeout_s * 1000), POLL_MS * 5)):
            return messages
        while True:
            try:
                messages.append(wire.decode_message(self._socket.recv(zmq.NOBLOCK)))
            except zmq.Again:
                return messages


def main(address: str, parent: int) -> int:
    """The engine process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    context = zmq.Context()
    up, down = context.socket(zmq.PUSH), context.socket(zmq.PULL)
    up.setsockopt(zmq.SNDHWM, 0)
    down.setsockopt(zmq.RCVHWM, 0)
    up.connect(f"{address}/up")
    down.connect(f"{address}/down")
    config = msgspec.msgpack.decode(down.recv(), type=Config)

    def publish(events: list[Event], stats: EngineStats) -> None:
        up.send(wire.encode_step(events, stats))

    try:
        began = time.perf_counter()
        from penstock.engine.build import build_engine

        imports = {"imports": time.perf_counter() - began}
        engine, info = build_engine(config, MonotonicClock(), publish)
        info.stages_s = imports | info.stages_s
        up.send(wire.encode_ready(info))
        engine.run(SocketInbox(down, parent))
    except PenstockError as error:
        up.send(wire.encode_failed(error.to_dict()))
        return 1
    except Exception as error:
        traceback.print_exc()
        failure = EngineError(f"The engine ended: {type(error).__name__}: {error}")
        up.send(wire.encode_failed(failure.to_dict()))
        return 1
    finally:
        up.close(linger=1000)
        down.close(linger=0)
        context.term()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
