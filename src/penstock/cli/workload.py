"""`penstock workload …`"""

from __future__ import annotations

import math
import os.path
import sys
from dataclasses import MISSING, dataclass, replace
from itertools import islice, takewhile
from pathlib import Path

from rich.console import Console

from penstock.cli.inputs import load_workload, read_log, read_text, read_trace, write_text
from penstock.config.option import option
from penstock.errors import ConfigError
from penstock.report import workload as drawing
from penstock.settings import command
from penstock.workload import export as exporting
from penstock.workload import file, requestlog
from penstock.workload.archetypes import PRESETS, TO_FILL_IN
from penstock.workload.fit import Fitted, fit
from penstock.workload.sessions import promised_service
from penstock.workload.traces import FORMATS, Trace

SAMPLE = 20_000
"""Requests that `show` draws."""


@dataclass(frozen=True, slots=True)
class InitOptions:
    archetype: str = option(
        "chatbot", "Kind of application to begin with", choices=tuple(PRESETS), positional=True
    )
    output: str | None = option(None, "File to write", automatic="the terminal", short="-o")


@command(own=InitOptions)
def init(options: InitOptions) -> int:
    """Write a workload file to fill in: every field with its meaning, values of an archetype."""
    text = file.to_toml(PRESETS[options.archetype](), comments=True)
    if options.output is None:
        print(text, end="")
        return 0
    if Path(options.output).exists():
        cause = f"--output is {options.output!r}: the file exists."
        raise ConfigError(cause, cure="Name another, or remove it first.", param="output")
    write_text(options.output, text, "--output")
    print(f"{options.output} written; fill in owner and model, then: "
          f"penstock workload check {options.output}")  # fmt: skip
    return 0


@dataclass(frozen=True, slots=True)
class CheckOptions:
    file: str = option(MISSING, "The workload file", positional=True)


@command(own=CheckOptions)
def check(options: CheckOptions) -> int:
    """Name every missing, unknown or contradictory field of a workload file."""
    workload, problems = file.inspect(read_text(options.file, "the workload"), options.file)
    for problem in problems:
        print(problem.text(options.file), file=sys.stderr)
    if workload is None:
        print(f"{len(problems)} to correct", file=sys.stderr)
        return 2
    load_workload(options.file)
    for name, value in (("owner", workload.owner), ("model.name", workload.model.name)):
        if value == TO_FILL_IN:
            print(f"note: {name} still says {value!r}", file=sys.stderr)
    print(f"{options.file}: {workload.name} {workload.version} is complete and consistent")
    return 0


@dataclass(frozen=True, slots=True)
class ShowOptions:
    file: str = option(MISSING, "The workload file", positional=True)
    html: str | None = option(None, "File for a page with plots", automatic="none is written")
    seed: int = option(0, "Seed of the sample")


@command(own=ShowOptions)
def show(options: ShowOptions) -> int:
    """Draw a workload: its rates over time, and its lengths as defined and as generated."""
    load = load_workload(options.file)
    sessions = math.ceil(SAMPLE / load.workload.calls_per_session)
    requests = list(islice(load.requests(options.seed, sessions=sessions), 2 * SAMPLE))
    picture = drawing.Picture(load.workload, load.rates(options.seed), requests)
    Console().print(drawing.terminal(picture))
    if options.html:
        write_text(options.html, drawing.html(picture), "--html")
        print(f"{options.html} written")
    return 0


@dataclass(frozen=True, slots=True)
class FromTraceOptions:
    trace: str = option(MISSING, "The trace: .csv, .jsonl or .json, also packed as .gz",
                        positional=True)  # fmt: skip
    format: str | None = option(None, "Its format", choices=FORMATS, automatic="told by line 1")
    archetype: str = option(
        "chatbot", "What to take for the fields that no trace tells", choices=tuple(PRESETS)
    )
    holes: str = option(
        "refuse", "Long stretches without a request: an error, kept, or cut out",
        choices=("refuse", "keep", "close"),
    )  # fmt: skip
    replay: bool = option(False, "Replay the recorded times in place of fitted arrivals")
    output: str | None = option(None, "File to write", automatic="the terminal", short="-o")


@command(own=FromTraceOptions)
def from_trace(options: FromTraceOptions) -> int:
    """Fit a workload file to recorded traffic.

    Formats: Azure, BurstGPT, Mooncake, Bailian (Alibaba), ServeGen, OpenTelemetry.
    """
    trace = _whole(read_trace(options.trace, options.format), options.holes)
    base = PRESETS[options.archetype]()
    beside = Path(options.output).parent if options.output else Path()
    relative = os.path.relpath(options.trace, beside)
    return _write(fit(trace, base, relative, keep_times=options.replay), trace, options.output)


@dataclass(frozen=True, slots=True)
class FromLogOptions:
    log: str = option(MISSING, "The folder that `penstock serve --log-dir` wrote", positional=True)
    archetype: str = option(
        "chatbot", "What to take for the fields that no log tells", choices=tuple(PRESETS)
    )
    holes: str = option(
        "refuse", "Long stretches without a request: an error, kept, or cut out",
        choices=("refuse", "keep", "close"),
    )  # fmt: skip
    output: str | None = option(None, "File to write", automatic="the terminal", short="-o")


@command(own=FromLogOptions)
def from_log(options: FromLogOptions) -> int:
    """Fit a workload file to what a server logged: rates, lengths, shared prefixes."""
    if not Path(options.log).is_dir():
        cause = f"the log is {options.log!r}: no folder."
        raise ConfigError(cause, cure="Name the folder of --log-dir.", param="log")
    records = ((line, record) for _, line, record in read_log(options.log, "log"))
    trace = _whole(requestlog.trace_of(records, options.log), options.holes)
    return _write(fit(trace, PRESETS[options.archetype](), ""), trace, options.output)


def _write(fitted: Fitted, trace: Trace, output: str | None) -> int:
    text = file.to_toml(fitted.workload, comments=True)
    for note in fitted.notes:
        print(f"note: {note}", file=sys.stderr)
    if output is None:
        print(text, end="")
    else:
        write_text(output, text, "--output")
        print(f"{output} written from {len(trace.rows) or len(trace.rates):,} lines")
    return 0


def _whole(trace: Trace, holes: str) -> Trace:
    if trace.holes and holes == "refuse":
        hole = trace.holes[0]
        cause = (
            f"{trace.name}:{hole.line}: time: nothing for {hole.length_s:,.0f} s after "
            f"{hole.at_s:,.0f} s ({len(trace.holes)} such holes)."
        )
        raise ConfigError(cause, cure="--holes keep if it was quiet, close to cut them out.")
    return trace.without_holes() if holes == "close" else trace


@dataclass(frozen=True, slots=True)
class ExportOptions:
    file: str = option(MISSING, "The workload file", positional=True)
    tool: str = option(MISSING, "Whose input to write", choices=exporting.TOOLS)
    output: str = option(MISSING, "Folder to write to", short="-o")
    start_s: float = option(0.0, "Begin, from the window's start", unit="seconds")
    duration_s: float = option(600.0, "Length of the stretch", unit="seconds")
    seed: int = option(0, "Seed of the requests")
    url: str = option("http://localhost:8000", "The server, for the command line")
    model: str | None = option(None, "Model's name for it", automatic="the workload's")


@command(own=ExportOptions)
def export(options: ExportOptions) -> int:
    """Write the load for another generator: guidellm, aiperf or inference-perf."""
    load = load_workload(options.file)
    end = options.start_s + options.duration_s
    service = promised_service(load.workload)
    stream = takewhile(lambda r: r.at_s < end, load.requests(options.seed, service))
    requests = [
        replace(request, at_s=request.at_s - options.start_s)
        for request in stream
        if request.at_s >= options.start_s
    ]
    model = options.model or load.workload.model.name
    made = exporting.export(load.workload, requests, options.tool, options.url, model)
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in made.files.items():
        write_text(str(folder / name), content, "--output")
    for note in made.notes:
        print(f"note: {note}", file=sys.stderr)
    print(f"{len(requests):,} requests written to {folder}; there run:\n{made.command}")
    return 0
