"""A rank other than 0, in a process of its own.

Started as `python -m penstock.engine.worker FD PARENT`, where FD is one end of a pipe. It loads
its part of the model, then runs every plan that rank 0 runs. It ends when it is told to, when the
pipe ends, or when its parent is gone.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from threading import Thread
from typing import Any

import msgspec

from penstock.config import Config
from penstock.core.plan import StepPlan
from penstock.errors import EngineError, PenstockError, from_dict

BEAT_S = 0.25
STOP = b""


@dataclass(frozen=True, slots=True)
class Task:
    """The first frame: what a worker is to do. The numbers are file descriptors of a Meeting."""

    config: Config
    rank: int
    size: int
    pulse: int
    segment: int
    store: int


@dataclass(frozen=True, slots=True)
class Room:
    """The second frame, once all weights are there: what rank 0 decided."""

    num_blocks: int
    block_size: int
    max_num_seqs: int
    max_model_len: int


@dataclass(frozen=True, slots=True)
class Word:
    """What a worker says: that it has loaded its weights, that it is ready, or that it failed."""

    kind: str
    weight_bytes: int = 0
    free_bytes: int = 0
    error: dict[str, Any] | None = None

    def checked(self) -> Word:
        """This word; raises the typed error if it is one."""
        if self.error is not None:
            raise from_dict(self.error)
        return self


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.decode


def main(fd: int, parent: int) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    line = Connection(fd)
    try:
        serve(line, decode(line.recv_bytes(), type=Task), parent)
    except (EOFError, ConnectionError):
        return 1  # nobody is left to tell
    except PenstockError as error:
        _fail(line, error)
        return 1
    except Exception as error:
        traceback.print_exc()
        _fail(line, EngineError(f"{type(error).__name__}: {error}"))
        return 1
    return 0


def _fail(line: Connection, error: PenstockError) -> None:
    with suppress(OSError):
        line.send_bytes(encode(Word("failed", error=error.to_dict())))


def serve(line: Connection, task: Task, parent: int) -> None:
    from penstock.parallel.meeting import Meeting  # torch comes with it

    meeting = Meeting(task.size, task.pulse, task.segment, task.store)
    pulses = meeting.pulses()

    def beat() -> None:
        """A process that is stopped goes silent; one whose parent is gone has no reason to be."""
        while os.getppid() == parent:
            pulses[1 + task.rank] += 1
            time.sleep(BEAT_S)
        os._exit(1)

    Thread(target=beat, name="penstock-beat", daemon=True).start()

    from penstock.engine.build import load_part
    from penstock.engine.kv import available_bytes
    from penstock.parallel.ranks import RankGroup

    ranks = RankGroup(task.rank, task.size)
    part = load_part(task.config, ranks)
    line.send_bytes(encode(Word("loaded", part.weight_bytes, available_bytes(part.device))))
    room = decode(line.recv_bytes(), type=Room)
    way = task.config.engine.tensor_parallel_transport
    meeting.connect(ranks, part.device, way, lambda: bool(pulses[0]))
    meeting.close()
    runner = part.runner(room, ranks)
    line.send_bytes(encode(Word("ready")))
    while frame := line.recv_bytes():
        error = runner.run(decode(frame, type=StepPlan)).error
        if error is not None:
            raise from_dict(error)


if __name__ == "__main__":
    code = main(int(sys.argv[1]), int(sys.argv[2]))
    sys.stderr.flush()
    os._exit(code)  # there is nothing to put in order, and torch takes its time to end
