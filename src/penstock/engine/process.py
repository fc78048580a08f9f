"""The engine process: `python -m penstock.engine.process FOLDER PARENT INDEX`.

Started by `child.Child`, which has bound the sockets `up` and `down` in the folder. The first
frame down is the config. The process ends when it is told to, or when its parent is gone.
"""

from __future__ import annotations

import signal
import sys
import time
import traceback
from collections.abc import Callable

import msgspec
import zmq

from penstock.config import Config
from penstock.core.events import Event
from penstock.engine import wire
from penstock.engine.activity import Activity
from penstock.engine.client import EngineStats, ModelInfo
from penstock.engine.clock import MonotonicClock
from penstock.engine.engine import Engine, Message, Publish
from penstock.engine.lifeline import die_with
from penstock.engine.pulse import Pulse
from penstock.errors import EngineError, PenstockError

Build = Callable[[Config, Publish, Activity, int], tuple[Engine, ModelInfo]]
"""`build_engine` of `engine.build`, or a test's own"""


class SocketInbox:
    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket

    def get(self, timeout_s: float) -> list[Message]:
        messages: list[Message] = []
        if timeout_s and not self._socket.poll(int(timeout_s * 1000)):
            return messages
        while True:
            try:
                messages.append(wire.decode_message(self._socket.recv(zmq.NOBLOCK)))
            except zmq.Again:
                return messages


def main(folder: str, parent: int, index: int, build: Build | None = None) -> int:
    """Serve until told to stop; the exit code."""
    die_with(parent)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the parent decides when to stop
    context = zmq.Context()
    pulse = Pulse(context, folder, parent)
    up, down = context.socket(zmq.PUSH), context.socket(zmq.PULL)
    up.setsockopt(zmq.SNDHWM, 0)
    down.setsockopt(zmq.RCVHWM, 0)
    up.connect(f"ipc://{folder}/up")
    down.connect(f"ipc://{folder}/down")
    config = msgspec.msgpack.decode(down.recv(), type=Config)

    def publish(events: list[Event], stats: EngineStats) -> None:
        up.send(wire.encode_step(events, stats))

    def failed(error: PenstockError) -> int:
        up.send(wire.encode_failed(error.to_dict()))
        return 1

    try:
        engine, info = (build or _build)(config, publish, pulse.activity, index)
        up.send(wire.encode_ready(info))
        engine.run(SocketInbox(down))
    except PenstockError as error:
        return failed(error)
    except Exception as error:
        traceback.print_exc()
        return failed(EngineError(f"The engine ended: {type(error).__name__}: {error}"))
    finally:
        pulse.stop()
        up.close(linger=1000)
        down.close(linger=0)
        context.term()
    return 0


def _build(
    config: Config, publish: Publish, activity: Activity, index: int
) -> tuple[Engine, ModelInfo]:
    activity.begin("imports")
    began = time.perf_counter()
    from penstock.engine.build import build_engine

    imports = {"imports": time.perf_counter() - began}
    engine, info = build_engine(config, MonotonicClock(), publish, activity, index)
    info.stages_s = imports | info.stages_s
    return engine, info


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
