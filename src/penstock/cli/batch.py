"""`penstock batch run`"""

from __future__ import annotations

import asyncio
from dataclasses import MISSING, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from penstock.config import Config, ServerConfig
from penstock.config.option import option
from penstock.jobs.batch import Batch
from penstock.jobs.store import Counts
from penstock.settings import Settings, command


@dataclass(frozen=True, slots=True)
class BatchOptions:
    input: str = option(
        MISSING, "File of requests in OpenAI's batch format, one a line", positional=True
    )
    output: str = option(MISSING, "File for the results, in the order of the requests", short="-o")


@command("model", "engine", "log", own=BatchOptions)
def run(settings: Settings, options: BatchOptions) -> None:
    """Run a file of requests offline. After an interruption the same command goes on where it was:
    each row is answered exactly once."""
    model = settings.config.model
    name = f"{model.model}@{model.revision}" if model.revision else model.model
    with Batch(Path(options.input), Path(options.output), name) as batch:
        try:
            if batch.counts.waiting:
                asyncio.run(_work(settings.config, batch))
        except KeyboardInterrupt:
            print("The results so far are kept: the same command goes on from here.")
            raise
        batch.export()
        counts = batch.counts
        print(f"{options.output}: {counts.done} done, {counts.failed} failed of {counts.total}")


async def _work(config: Config, batch: Batch) -> None:
    """Answer the waiting rows by the server's own code, in this process."""
    from penstock.jobs.asgi import AppHandler
    from penstock.llm.offline import start_in_process
    from penstock.server.app import create_app
    from penstock.server.service import Service

    # Keys, deadlines and limits of a server that shares the config file do not concern a batch.
    service = Service(replace(config, server=ServerConfig()))
    llm = await start_in_process(config)
    service.open(llm)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    try:
        with Progress(
            *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
        ) as bar:
            task = bar.add_task("rows", total=batch.counts.total)

            def told(counts: Counts) -> None:
                bar.update(task, completed=counts.total - counts.waiting)

            told(batch.counts)
            await batch.run(AppHandler(create_app(service)), 2 * llm.info.max_num_seqs, told)
    finally:
        await service.close()
