"""Files that several commands read: workloads and traces, plain or compressed."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import penstock
from penstock.errors import ConfigError
from penstock.sizing.shape import ModelShape, read_shape
from penstock.workload import file, replay, traces
from penstock.workload.arrivals import windowed_rates
from penstock.workload.definition import Workload
from penstock.workload.sessions import Generator, Service, TimedRequest
from penstock.workload.traces import Trace


def read_text(path: str, flag: str) -> str:
    """A text file, unpacked if its name ends in .gz. Raises ConfigError naming the flag."""
    try:
        if path.endswith(".gz"):
            with gzip.open(path, "rt", encoding="utf-8") as packed:
                return packed.read()
        return Path(path).read_text(encoding="utf-8")
    except (OSError, EOFError, UnicodeDecodeError, gzip.BadGzipFile) as error:
        why = getattr(error, "strerror", None) or str(error)
        cause = f"{flag} is {path!r}: it cannot be read: {why}."
        raise ConfigError(cause, cure="Check the path.", param=flag) from None


def write_text(path: str, content: str, flag: str) -> None:
    """Raises ConfigError naming the flag."""
    try:
        Path(path).write_text(content, encoding="utf-8")
    except OSError as error:
        cause = f"{flag} is {path!r}: it cannot be written: {error.strerror}."
        raise ConfigError(cause, cure="Make the folder first.", param=flag) from None


def read_log(folder: str, flag: str) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """(file, line, record) of a folder of logs; a torn last line is passed over. Raises
    ConfigError for another line that is no JSON."""
    for path in sorted(Path(folder).rglob("*.jsonl*")):
        lines = read_text(str(path), flag).splitlines()
        for number, line in enumerate(lines, 1):
            try:
                yield str(path), number, json.loads(line)
            except json.JSONDecodeError as error:
                if number < len(lines):
                    cause = f"{path}:{number}: not JSON: {error.msg}."
                    raise ConfigError(cause, cure="Remove that line.", param=flag) from None


def read_trace(path: str, format: str | None = None) -> Trace:
    return traces.parse(read_text(path, "the trace").splitlines(), path, format)


@dataclass(frozen=True, slots=True)
class Load:
    """A workload file in hand, with the trace that it replays, if any."""

    workload: Workload
    trace: Trace | None

    def requests(
        self, seed: int = 0, service: Service | None = None, sessions: int | None = None
    ) -> Iterator[TimedRequest]:
        """Its requests in order of time; `service` and `sessions` as in `Generator.requests`."""
        if self.trace is not None:
            return replay.requests(self.trace, self.workload.slo_class)
        return Generator(self.workload, seed).requests(service, sessions)

    def rates(self, seed: int = 0) -> list[float]:
        """Sessions/s in each rate window."""
        if self.trace is not None:
            times = [row.at_s for row in self.trace.rows]
            step = self.workload.arrivals.rate_window_s
            return windowed_rates(times, self.workload.window.duration_s, step)
        return Generator(self.workload, seed).rates


def load_workload(path: str) -> Load:
    """Read and check a workload file; the trace that it names lies beside it."""
    workload = file.read(read_text(path, "the workload"), path)
    name = workload.arrivals.trace
    trace = read_trace(str(Path(path).parent / name)) if name else None
    return Load(workload, trace)


def read_model(name: str) -> ModelShape:
    """The shape of `demo`, of a folder with a config.json, or of such a file."""
    if name == "demo":
        path = Path(penstock.__file__).parent / "demo" / "model" / "config.json"
    else:
        path = Path(name)
        path = path / "config.json" if path.is_dir() else path
    return read_shape(read_text(str(path), "--model"), str(path))
