"""A rank that does not lead, in a process of its own.

Started as `python -m penstock.engine.worker FD PARENT`, where FD is one end of a pipe. It loads
its part of the model, then runs every plan that the leader runs. It ends when it is told to, when
the pipe ends, or when its parent is gone.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from threading import Thread

from penstock.core.plan import StepPlan
from penstock.engine.frames import Room, Task, Word, decode, encode
from penstock.engine.lifeline import die_with
from penstock.errors import EngineError, PenstockError, from_dict

BEAT_S = 0.25


def main(fd: int, parent: int) -> int:
    die_with(parent)
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
    seat = task.seat
    ranks, pulses = seat.ranks(), seat.pulses()

    def beat() -> None:
        """A process that is stopped goes silent; one whose parent is gone has no reason to be."""
        while os.getppid() == parent:
            pulses[1 + ranks.number] += 1
            time.sleep(BEAT_S)
        os._exit(1)

    Thread(target=beat, name="penstock-beat", daemon=True).start()

    from penstock.engine.build import Part

    part = Part(task.config, ranks, task.index)
    line.send_bytes(encode(part.word()))
    room = decode(line.recv_bytes(), type=Room)
    way = task.config.engine.parallel_transport
    seat.connect(ranks, part.device, way, lambda: bool(pulses[0]))
    seat.close()
    runner = part.runner(room)
    del part  # what was packed is not needed twice
    line.send_bytes(encode(Word("ready")))
    while frame := line.recv_bytes():
        error = runner.run(decode(frame, type=StepPlan)).error
        if error is not None:
            raise from_dict(error)


if __name__ == "__main__":
    code = main(int(sys.argv[1]), int(sys.argv[2]))
    sys.stderr.flush()
    os._exit(code)  # there is nothing to put in order, and torch takes its time to end
