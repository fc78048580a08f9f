"""How the run and an engine's process talk: a line of JSON each way.

    {"requests": [[[ids], count], …]}       ->  {"seconds": …, "first_s": …, "tokens": …, …}

The first line up says that the engine is ready. What an engine itself prints goes to stderr. A
process that waits for its turn is stopped (SIGSTOP), so that no idle thread of it takes time.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.cpu.works import Request

ROOT = Path(__file__).parents[2]
START_S = 900.0
WORK_S = 900.0
END_S = 20.0
Run = Callable[[list[Request]], dict[str, float]]
"""Does requests at once, greedy and to their full length; returns `seconds` from the first sent to
the last token, `first_s` to the first token of any, `tokens` made; more figures if it likes."""


def serve(start: Callable[[], tuple[Run, dict[str, Any]]]) -> None:
    """The engine's side. start: loads it; also tells facts such as its `version`."""
    up = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    run, facts = start()
    print(json.dumps(facts), file=up, flush=True)
    for line in sys.stdin:
        found = run([(prompt, count) for prompt, count in json.loads(line)["requests"]])
        print(json.dumps(found), file=up, flush=True)


def command_line(parser: argparse.ArgumentParser, *options: str) -> argparse.Namespace:
    """What all engines are told: the model, the number of threads; and options of their own."""
    parser.add_argument("model")
    parser.add_argument("--threads", type=int)
    for option in options:
        parser.add_argument(option)
    return parser.parse_args()


class Child:
    """The run's side: one engine in a process group of its own."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._log = log
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                text=True,
                start_new_session=True,
            )
        self.facts = self._read(START_S)
        self.rest()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wake(self) -> None:
        os.killpg(self.pid, signal.SIGCONT)

    def rest(self) -> None:
        os.killpg(self.pid, signal.SIGSTOP)

    def do(self, requests: list[Request]) -> dict[str, float]:
        """To an engine that is awake. Raises RuntimeError when it ends or makes other tokens than
        it was asked for."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"requests": requests}) + "\n")
        self._process.stdin.flush()
        found = self._read(WORK_S)
        wanted = sum(count for _, count in requests)
        if found["tokens"] != wanted:
            raise RuntimeError(f"{found['tokens']} tokens were made, not {wanted}: {self._log}")
        return found

    def _read(self, limit_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], limit_s)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            why = "ended" if ready else f"said nothing for {limit_s:.0f} s"
            self.close()
            tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
            raise RuntimeError(f"the engine {why}; {self._log}:\n{tail}")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """End the engine and what it has started. May be called twice."""
        process = self._process
        if process.poll() is None:
            self.wake()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):
                assert pipe is not None
                pipe.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_S)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        process.wait()
