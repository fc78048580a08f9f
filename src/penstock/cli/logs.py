"""`penstock logs …`: what a server logged, read back."""

from __future__ import annotations

import csv
import json
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from penstock.config.option import option
from penstock.core.records import RequestRecord
from penstock.debug import explain as explaining
from penstock.debug import export as exporting
from penstock.debug import figures, prefixes
from penstock.errors import ConfigError
from penstock.observe import reader
from penstock.report import logs as report
from penstock.settings import command

MISSING_DIR = "penstock-logs"
POLL_S = 0.5


def _dir() -> str:
    text: str = option(MISSING_DIR, "The folder that --log-dir gave", positional=True)
    return text


@dataclass(frozen=True, slots=True)
class TailOptions:
    dir: str = _dir()
    last: int = option(20, "How many", unit="requests")
    follow: bool = option(False, "Go on with those that end from now on")


@dataclass(frozen=True, slots=True)
class StatsOptions:
    dir: str = _dir()
    by: str = option("all", "What to group by", choices=tuple(figures.GROUPS))
    json: bool = option(False, "Print JSON")


@dataclass(frozen=True, slots=True)
class QueryOptions:
    dir: str = _dir()
    sql: str = option("SELECT count(*) AS requests FROM requests", "The query", positional=True)
    csv: bool = option(False, "Print CSV")


@dataclass(frozen=True, slots=True)
class ExplainOptions:
    dir: str = _dir()
    id: str = option("", "Id of a request, or its beginning", positional=True)
    choice: int | None = option(None, "Which of the n answers", automatic="the one that ended last")
    json: bool = option(False, "Print JSON")


@dataclass(frozen=True, slots=True)
class SlowestOptions:
    dir: str = _dir()
    last: int = option(10, "How many", unit="requests")
    of: str = option("e2e", "Which latency", choices=tuple(figures.LATENCIES))


@dataclass(frozen=True, slots=True)
class PrefixOptions:
    dir: str = _dir()
    last: int = option(20, "How many turns to show: those that reuse least", unit="turns")


@dataclass(frozen=True, slots=True)
class ExportOptions:
    dir: str = _dir()
    perfetto: str | None = option(
        None, "File for a trace that ui.perfetto.dev opens", automatic="none"
    )
    trace: str | None = option(
        None,
        "File for the load in Mooncake's form, which `workload from-trace` reads",
        automatic="none",
    )


@command(own=TailOptions)
def tail(options: TailOptions) -> None:
    """The latest requests, a line each."""
    folder = Path(options.dir)
    log = reader.read(folder, {"request", "begin"})
    shown = log.requests[-options.last :] if options.last > 0 else []
    for record in shown:
        print(_line(record))
    known = {record.id for record in log.requests}
    while options.follow:
        time.sleep(POLL_S)
        for _, record in reader.records(folder, {"request"}):
            if record.id not in known:
                known.add(record.id)
                print(_line(record), flush=True)


def _line(record: RequestRecord) -> str:
    at = datetime.fromtimestamp(record.received_s, UTC).strftime("%H:%M:%S.%f")[:-3]
    found = figures.latencies(record)
    times = [f"{name} {1e3 * found[name][0]:.0f} ms" for name in ("ttft", "e2e") if found[name]]
    text = (record.choices[0].text or "").replace("\n", "\\n")
    counts = f"{record.num_prompt} ({record.cached_tokens} cached) -> {record.num_output}"
    return f"{at}  {record.id}  {counts}  {'  '.join(times)}  {record.finish}  {text[:40]!r}"


@command(own=StatsOptions)
def stats(options: StatsOptions) -> None:
    """Mean, p50, p95, p99 of every latency; tokens and hit rates; by group."""
    log = reader.read(Path(options.dir), {"request", "begin", "lost"})
    groups = figures.grouped(log.requests, options.by)
    if options.json:
        print(json.dumps([_group_json(group) for group in groups], indent=2))
        return
    console = Console()
    for group in groups:
        spreads = [(name, group.spread(name)) for name in figures.LATENCIES]
        console.print(report.latencies(group.name, spreads))
        console.print(
            f"{group.requests:,} requests, {group.errors} errors, {group.preemptions} preemptions; "
            f"{group.prompt_tokens:,} prompt tokens, {100 * group.hit_rate:.1f} % of them cached; "
            f"{group.output_tokens:,} output tokens, {group.output_rate:,.1f} /s"
        )
    for line in _complaints(log):
        console.print(line)


def _group_json(group: figures.Group) -> dict[str, object]:
    return {
        "group": group.name,
        "requests": group.requests,
        "errors": group.errors,
        "preemptions": group.preemptions,
        "prompt_tokens": group.prompt_tokens,
        "cached_tokens": group.cached_tokens,
        "output_tokens": group.output_tokens,
        "hit_rate": group.hit_rate,
        "output_tokens_per_s": group.output_rate,
        "latency_s": {name: group.spread(name).to_dict() for name in figures.LATENCIES},
    }


def _complaints(log: reader.Log) -> list[str]:
    found = []
    if log.begins:
        found.append(f"{len(log.begins)} requests began and have not ended")
    if log.faults.torn or log.faults.broken:
        found.append(f"{log.faults.torn} torn and {log.faults.broken} broken lines passed over")
    return found


@command(own=QueryOptions)
def query(options: QueryOptions) -> None:
    """SQL (DuckDB) over the views requests, choices, steps, telemetry, notes, headers, begins."""
    from penstock.debug.query import query

    names, rows = query(Path(options.dir), options.sql)
    if options.csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(names)
        writer.writerows(rows)
    else:
        Console().print(report.rows("", names, rows))


@command(own=ExplainOptions)
def explain(options: ExplainOptions) -> None:
    """Where each millisecond of a request went, from the first byte in to the last byte out."""
    log = reader.read(Path(options.dir))
    record = log.find(_required(options.id))
    if options.choice is not None and not 0 <= options.choice < record.n:
        raise ConfigError(
            f"--choice is {options.choice}: the request has {record.n}.", cure="Count from 0."
        )
    found = explaining.explain(log, record, options.choice)
    if options.json:
        spans = [
            {"name": s.name, "begin_s": s.begin, "s": s.s, "how": s.detail} for s in found.spans
        ]
        print(json.dumps({"id": record.id, "total_s": found.total_s, "spans": spans}, indent=2))
        return
    console = Console()
    console.print(
        report.spans(f"{record.id}, choice {found.choice.index}", found.spans, found.total_s)
    )
    console.print(
        f"{100 * found.accounted:.1f} % of {found.total_s * 1e3:.2f} ms accounted for; "
        f"{record.num_prompt} prompt tokens, {record.cached_tokens} of them cached; "
        f"{record.num_output} output tokens; ended by {record.finish}"
    )


def _required(request_id: str) -> str:
    if not request_id:
        raise ConfigError("No request is named.", cure="`penstock logs tail` shows ids.")
    return request_id


@command(own=SlowestOptions)
def slowest(options: SlowestOptions) -> None:
    """The slowest requests, and what each spent most of its time on."""
    log = reader.read(Path(options.dir))
    ranked = []
    for record in log.requests:
        values = figures.latencies(record)[options.of]
        if values:
            ranked.append((max(values), record))
    ranked.sort(key=lambda item: -item[0])
    rows = []
    for value, record in ranked[: options.last]:
        found = explaining.explain(log, record).by_name()
        top = ", ".join(f"{name} {1e3 * s:.1f} ms" for name, s in list(found.items())[:2])
        rows.append((record.id, f"{1e3 * value:.1f}", record.finish, top))
    names = ("id", f"{options.of} ms", "finish", "most of its time")
    Console().print(report.rows("", names, rows))


@command(own=PrefixOptions)
def prefix(options: PrefixOptions) -> None:
    """Prefix reuse, actual beside ideal, and where the turns of a session part."""
    found = prefixes.report(reader.read(Path(options.dir), {"request"}))
    console = Console()
    console.print(
        f"{found.tokens:,} prompt tokens: {100 * found.actual:.1f} % came from the cache; "
        f"{100 * found.ideal:.1f} % would have, from a boundless one"
    )
    if found.without_ids:
        console.print(f"{found.without_ids} requests have no ids in the log (redacted)")
    parted = [turn for turn in found.turns if not turn.whole]
    parted.sort(key=lambda turn: turn.diverges / max(1, turn.known))
    rows = [
        (t.session, t.record.id, t.diverges, t.known, t.written, t.record.cached_tokens)
        for t in parted[: options.last]
    ]
    console.print(f"{len(found.turns)} turns, {len(parted)} leave what the turn before held")
    if rows:
        names = ("session", "id", "parts at", "earlier prompt", "earlier output", "cached")
        console.print(report.rows("", names, rows))


@command(own=ExportOptions)
def export(options: ExportOptions) -> None:
    """The log as a Perfetto trace, or as a trace of load."""
    from penstock.cli.inputs import write_text

    if options.perfetto is None and options.trace is None:
        raise ConfigError("Nothing to export.", cure="Give --perfetto FILE or --trace FILE.")
    log = reader.read(Path(options.dir))
    if options.perfetto is not None:
        write_text(options.perfetto, "".join(exporting.perfetto(log)), "--perfetto")
    if options.trace is not None:
        write_text(options.trace, "".join(exporting.mooncake(log)), "--trace")
