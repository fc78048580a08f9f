"""`penstock replay`"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from penstock.config import Config
from penstock.config.option import option
from penstock.config.tree import all_options
from penstock.core.records import RequestRecord
from penstock.errors import ConfigError
from penstock.observe import reader
from penstock.settings import Settings, command


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    dir: str = option("penstock-logs", "The folder that --log-dir gave", positional=True)
    id: str = option("", "Id of a request, or its beginning", positional=True)
    all: bool = option(False, "Every logged request, as an audit")
    sample: int | None = option(
        None, "With --all: so many, drawn at random", unit="requests", automatic="every one"
    )
    sample_seed: int = option(0, "Of the draw")
    json: bool = option(False, "Print JSON")


@command("model", "engine", own=ReplayOptions)
def replay(settings: Settings, options: ReplayOptions) -> int:
    """Generate logged requests again, from the log alone, and compare token by token. The model
    and the engine are those of the log, but for options that are given. Exit code 1 when a token
    differs."""
    log = reader.read(Path(options.dir), {"request", "begin"})
    chosen = _chosen(log, options)
    header = log.headers.get(chosen[-1].start)
    if header is None:
        raise ConfigError("The log's header is gone.", cure="Keep whole segments.")
    from penstock.debug.replay import Result, config_of  # the engine is imported here

    config = config_of(header, **_given(settings))
    results: list[Result] = asyncio.run(_replay(config, chosen, log))
    if options.json:
        print(json.dumps([_json(result) for result in results], indent=2))
    else:
        _print(results)
    return 0 if all(result.same for result in results) else 1


def _chosen(log: reader.Log, options: ReplayOptions) -> list[RequestRecord]:
    if not options.all:
        if not options.id:
            raise ConfigError("No request is named.", cure="Give an id, or --all.")
        return [log.find(options.id)]
    if not log.requests:
        raise ConfigError("The log has no finished requests.", cure="Name another folder.")
    if options.sample is None or options.sample >= len(log.requests):
        return log.requests
    return random.Random(options.sample_seed).sample(log.requests, max(1, options.sample))


def _given(settings: Settings) -> dict[str, dict[str, Any]]:
    """Options that something other than its default set, by section."""
    found: dict[str, dict[str, Any]] = {"model": {}, "engine": {}}
    for item in all_options():
        if item.section in found and settings.sources[item.path] != "default":
            found[item.section][item.name] = getattr(
                getattr(settings.config, item.section), item.name
            )
    return found


async def _replay(config: Config, chosen: list[RequestRecord], log: reader.Log) -> Any:
    from penstock.debug.replay import replay
    from penstock.llm.offline import start_in_process

    llm = await start_in_process(config)
    try:
        return await replay(llm, chosen, log.headers)
    finally:
        await llm.close()


def _json(result: Any) -> dict[str, Any]:
    return {
        "id": result.record.id,
        "same": result.same,
        "tokens": result.tokens,
        "refused": result.refused,
        "divergences": [asdict(divergence) for divergence in result.divergences],
        "changed": result.changed,
    }


def _print(results: list[Any]) -> None:
    console = Console(highlight=False)
    for result in results:
        for d in result.divergences:
            gap = "" if d.gap is None else f", logprob gap {d.gap:.4f}"
            console.print(
                f"{result.record.id} choice {d.choice}: from token {d.position} on {d.replayed} "
                f"in place of {d.logged}{gap}"
            )
        if result.refused:
            console.print(f"{result.record.id}: not replayed: {result.refused}")
    changed = Counter(
        f"{name}: {was} then, {now} now" for r in results for name, (was, now) in r.changed.items()
    )
    for text, count in changed.items():
        console.print(f"differs in {count} of {len(results)} requests: {text}")
    same = sum(result.same for result in results)
    worst = max((result.logprob_error for result in results), default=0.0)
    console.print(
        f"{same} of {len(results)} requests the same, {sum(r.tokens for r in results):,} tokens "
        f"compared; largest difference of logprobs {worst:.2g}"
    )
