"""`penstock bench …`"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from penstock.bench import compare as comparing
from penstock.bench.points import Bench, Point, RunOptions, exit_code
from penstock.bench.serve import Report, ServeOptions, run
from penstock.bench.tables import points_page, points_table, render
from penstock.cli.inputs import load_workload, read_text, write_text
from penstock.config.option import option
from penstock.errors import ConfigError
from penstock.report import run_page, run_tables
from penstock.report.machine import command_line, machine_info
from penstock.report.records import RequestRecord
from penstock.report.run import from_json, to_json
from penstock.report.stats import percentile
from penstock.settings import command
from penstock.workload.sessions import stretch


@command(own=ServeOptions)
def serve(options: ServeOptions) -> int:
    """Measure any OpenAI-style server under load: latency and throughput by concurrency."""
    if options.json and not Path(options.json).parent.is_dir():
        cause = f"--json is {options.json!r}: its folder does not exist."
        raise ConfigError(cause, cure="Make the folder first.", param="json")
    report = _run(options)
    Console().print(render(report))
    if options.json:
        Path(options.json).write_text(json.dumps(report.to_dict(), indent=2) + "\n")
    return 0 if all(level.completed for level in report.levels) else 1


def _run(options: ServeOptions) -> Report:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    tasks = {}
    hidden = not console.is_terminal
    with Progress(
        *columns, TimeElapsedColumn(), console=console, transient=True, disable=hidden
    ) as bar:

        def progress(concurrency: int, finished: int, wanted: int) -> None:
            if concurrency not in tasks:
                tasks[concurrency] = bar.add_task(f"concurrency {concurrency}", total=wanted)
            bar.update(tasks[concurrency], completed=finished)

        return run(options, progress)


@command(own=RunOptions)
def load(options: RunOptions) -> int:
    """Drive any OpenAI-style server with a workload, open loop, and judge it by its promises.

    Latency counts from when a request was due. Afterwards `penstock simulate --against` the run
    tells how well the simulator would have foretold it.
    """
    options.validate()
    for name in ("json", "html"):
        path = getattr(options, name)
        if path and not Path(path).parent.is_dir():
            cause = f"--{name} is {path!r}: its folder does not exist."
            raise ConfigError(cause, cure="Make the folder first.", param=name)
    found = load_workload(options.file)
    stream = found.requests(options.seed)
    requests = list(stretch(stream, options.start_s, options.duration_s * options.speed))
    about = {"command": command_line(), "machine": machine_info()}
    points = _measured(Bench(options, found.workload, requests, about, lambda *_: None))
    _tell(points, options)
    return exit_code(points.points[-1].summary) if options.check else 0


def _measured(bench: Bench) -> Bench:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    tasks = {}
    with Progress(
        *columns, TimeElapsedColumn(), console=console, transient=True,
        disable=not console.is_terminal,
    ) as bar:  # fmt: skip

        def told(point: str, ended: Sequence[RequestRecord], still_open: int, total: int) -> None:
            if bar.disable:
                return
            if point not in tasks:
                tasks[point] = bar.add_task(point, total=total)
            last = [r.ttft_s for r in ended[-100:] if r.ttft_s is not None]
            failed = sum(bool(r.error) for r in ended[-100:])
            words = f"{point}: {still_open} open, TTFT p50 {1e3 * percentile(last, 50):.0f} ms"
            words += f", {failed} of the last 100 failed" if failed else ""
            bar.update(tasks[point], completed=len(ended), description=words)

        bench.told = told
        bench.measure()
    return bench


def _tell(bench: Bench, options: RunOptions) -> None:
    console = Console()
    points: list[Point] = bench.points
    last = points[-1]
    if len(points) > 1:
        console.print(points_table(points))
    if options.mode == "search":
        best = bench.best_rate
        told = "none was found" if best is None else f"{best:.3g} requests/s"
        console.print(f"Highest constant rate inside every promise: {told}")
    console.print(run_tables.render(last.run, last.summary))
    if options.json:
        write_text(options.json, to_json(last.run, last.summary), "--json")
        against = f"penstock simulate {options.file} --against {options.json}"
        console.print(f"{options.json} written; how well it was foretold: {against}")
    if options.html:
        title = f"{Path(options.file).stem} on {options.url}"
        plots = points_page(points) if len(points) > 1 else ()
        page = run_page.page(last.run, last.summary, title, plots=plots)
        write_text(options.html, page, "--html")
        console.print(f"{options.html} written")


@dataclass(frozen=True, slots=True)
class CompareOptions:
    before: str = option(MISSING, "A run, as --json wrote it", positional=True)
    after: str = option(MISSING, "Another one", positional=True)
    check: bool = option(False, "Exit code 5 when a figure is significantly worse")


@command(own=CompareOptions)
def compare(options: CompareOptions) -> int:
    """Two runs side by side: what changed, and whether that can be chance."""
    runs = [from_json(read_text(path, "the run"), path) for path in (options.before, options.after)]
    changes = comparing.compare(*runs)
    Console().print(comparing.render(changes))
    worse = any(change.word == "worse" for change in changes)
    return 5 if options.check and worse else 0
