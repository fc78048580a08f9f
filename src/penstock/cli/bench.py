"""`penstock bench serve`"""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from penstock.bench.serve import Report, ServeOptions, run
from penstock.bench.tables import render
from penstock.errors import ConfigError
from penstock.settings import command


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
