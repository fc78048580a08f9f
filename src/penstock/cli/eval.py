"""`penstock eval`"""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from penstock.errors import ConfigError
from penstock.evals.options import EvalOptions
from penstock.settings import Settings, command


@command("model", "engine", own=EvalOptions)
def evaluate(settings: Settings, options: EvalOptions) -> int:
    """Compare a model as it would be served with the unquantized one, on a text: perplexity, KL
    divergence, agreement, bits per weight. With bounds it is a gate: exit code 1 if one fails."""
    if options.json and not Path(options.json).parent.is_dir():
        cause = f"--json is {options.json!r}: its folder does not exist."
        raise ConfigError(cause, cure="Make the folder first.", param="json")
    from penstock.evals import evaluate as evals  # torch is imported here
    from penstock.evals.tables import render

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    hidden = not console.is_terminal
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=hidden
    ) as bar:
        task = bar.add_task("tokens", total=None)
        report = evals.evaluate(
            settings.config,
            options,
            lambda scored, of: bar.update(task, completed=scored, total=of),
        )
    Console().print(render(report))
    if options.json:
        Path(options.json).write_text(json.dumps(report.to_dict(), indent=2) + "\n")
    return 1 if report.failures else 0
