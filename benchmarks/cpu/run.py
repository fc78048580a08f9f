"""Penstock and whichever peers are installed, on the same weights and works, in turns.

    python -m benchmarks.cpu.run [--peers FOLDER] [--rounds 5] [--shapes l135,q06] [--tiny]

Every engine is started once a shape and stopped (SIGSTOP) while others work; a round gives each
work to each engine, beginning with another one each time. In every round the machine's limits are
measured as well. Lines go to lines.jsonl as they come; at the end summary.json, plot.png and
table.md are made from them (also alone: python -m benchmarks.cpu.summary), and the table in
README.md unless only some engines ran or lengths were scaled.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.cpu import meter, summary
from benchmarks.cpu.engines import ENGINES, INT8, Engine, Place, module
from benchmarks.cpu.http import measure_http, serving
from benchmarks.cpu.protocol import ROOT, Child
from benchmarks.cpu.works import WORKS, work
from benchmarks.make_checkpoint import CHECKPOINTS, SHAPES, checkpoint
from penstock.report.machine import command_line, machine_info

PEERS = Path(__file__).parent / "installed"
"""ignored by git"""
WEIGHTS_BYTES = {"l135": 135_000_000, "q06": 597_000_000, "tiny": 1 << 20}
"""in int8: the size of the buffer whose reading is the limit of decoding"""
HTTP = "H over HTTP"
Line = dict[str, Any]


def main() -> None:
    given = arguments()
    lines: list[Line] = [{"kind": "run", "command": command(), "machine": machine_info()}]
    lines[0]["options"] = {name: str(value) for name, value in vars(given).items()}
    began = time.monotonic()
    given.out.mkdir(parents=True, exist_ok=True)
    forget_hardware()
    with (given.out / summary.LINES).open("w") as file:
        print(json.dumps(lines[0]), file=file, flush=True)
        for line in measured(given):
            lines.append(line)
            print(json.dumps(line), file=file, flush=True)
            show(line)
    print(f"{(time.monotonic() - began) / 60:.1f} minutes")
    whole = given.scale == 1 and not given.engines
    summary.write(lines, given.out, ROOT / "README.md" if whole else None)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", type=Path, default=PEERS, help="where the peers are installed")
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shapes", default="l135,q06")
    parser.add_argument("--works", default=",".join((*WORKS, HTTP)))
    parser.add_argument("--engines", default="", help="only these, by name, separated by commas")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, default=summary.RESULTS)
    parser.add_argument("--scale", type=int, default=1, help="divides all lengths")
    parser.add_argument("--tiny", action="store_true", help="try it out on a tiny model: no result")
    given = parser.parse_args()
    given.peers, given.out = given.peers.absolute(), given.out.absolute()
    if given.tiny:
        given.shapes, given.rounds, given.scale = "tiny", min(given.rounds, 2), 16
    return given


def measured(given: argparse.Namespace) -> Iterator[Line]:
    """A line for each engine that starts, each figure and each look at the limits."""
    for shape in given.shapes.split(","):
        place = Place(given.peers, checkpoint(shape, given.checkpoints.absolute()))
        wanted = [name for name in given.engines.split(",") if name]
        engines = [e for e in ENGINES if e.installed(given.peers) and e.works[shape]]
        engines = [e for e in engines if not wanted or e.name in wanted]
        yield from one_shape(given, place, engines)


def one_shape(given: argparse.Namespace, place: Place, engines: list[Engine]) -> Iterator[Line]:
    shape, logs = place.checkpoint.name, given.out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    running: dict[str, Child] = {}
    with ExitStack() as stack:

        def begin(name: str, command: list[str]) -> Child:
            child = Child([*command, "--threads", str(given.threads)], logs / f"{shape} {name}.log")
            stack.callback(child.close)
            return child

        size = str(WEIGHTS_BYTES[shape])
        limits = begin("limits", module(sys.executable, "limits", size))
        for engine in engines:
            base = {"kind": "engine", "shape": shape, "engine": engine.name}
            try:
                began = time.monotonic()
                prepare(engine, place, logs)
                running[engine.name] = child = begin(engine.name, engine.command(place))
                took_s = time.monotonic() - began
                yield base | {"start_s": took_s, **child.facts}
            except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                yield base | {"failed": str(error)}
        url = ""
        if HTTP in given.works.split(",") and INT8 in running:
            url = stack.enter_context(serving(place.checkpoint, given.threads, logs / "serve.log"))
        for index in range(given.rounds):
            yield from one_round(given, shape, index, engines, running, limits, url)


def forget_hardware() -> None:
    """So that Penstock's first start measures the machine as it is in this run."""
    from penstock.engine.packs import user_cache

    for kept in user_cache().glob("hardware-*.toml"):
        kept.unlink()


def prepare(engine: Engine, place: Place, logs: Path) -> None:
    """Make what the engine loads, where it is not there."""
    if Path(engine.model(place)).exists():
        return
    with (logs / f"prepare {engine.name}.log").open("w") as log:
        for line in engine.prepare(place):
            done = subprocess.run(line, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
            if done.returncode:
                raise RuntimeError(f"{' '.join(line)} failed: {log.name}")


def one_round(
    given: argparse.Namespace,
    shape: str,
    index: int,
    engines: list[Engine],
    running: dict[str, Child],
    limits: Child,
    url: str,
) -> Iterator[Line]:
    wanted = given.works.split(",")
    vocab_size = SHAPES[shape]["vocab_size"]
    for name in (name for name in WORKS if name in wanted):
        todo = work(name, index, vocab_size, given.scale)
        takers = [e for e in engines if name in e.works[shape].split() and e.name in running]
        takers = takers[index % max(1, len(takers)) :] + takers[: index % max(1, len(takers))]
        for engine in takers:
            child = running[engine.name]
            line = {"kind": "figure", "shape": shape, "round": index, "work": name}
            line["engine"] = engine.name
            try:
                child.wake()
                if todo.before:
                    child.do(todo.before)
                before = meter.read([child.pid])
                found = child.do(todo.requests)
                found["input"] = todo.num_input
                yield line | found | meter.shares(before, meter.read([child.pid]))
                child.rest()
            except (RuntimeError, OSError) as error:
                child.close()
                del running[engine.name]
                yield line | {"failed": str(error)}
    if url:
        before = meter.read([])
        found = measure_http(url, given.scale)
        line = {"kind": "figure", "shape": shape, "round": index, "work": HTTP, "engine": INT8}
        yield line | found | meter.shares(before, meter.read([]))
    limits.wake()
    before = meter.read([limits.pid])
    found = limits.do([])
    line = {"kind": "limits", "shape": shape, "round": index}
    yield line | found | meter.shares(before, meter.read([limits.pid]))
    limits.rest()


def show(line: Line) -> None:
    """What happens just now, for whoever waits."""
    told = ("shape", "engine", "work", "round", "seconds", "failed", "start_s")
    shown = [line["kind"]]
    for name in told:
        if name in line:
            value = line[name]
            shown.append(f"{value:.2f} s" if isinstance(value, float) else str(value))
    print("  ".join(shown), flush=True)


def command() -> str:
    return "python -m benchmarks.cpu.run " + command_line().partition(" ")[2]


if __name__ == "__main__":
    main()
