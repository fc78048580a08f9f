"""Recorded traffic: the formats that others publish, read line by line into one shape.

| format | what it is | times | prefixes | sessions |
| --- | --- | --- | --- | --- |
| azure | Azure LLM inference traces 2023, 2024 (CSV) | date and time | - | - |
| burstgpt | BurstGPT (CSV, s) | since the start | - | newer files |
| mooncake | Mooncake FAST'25 (JSONL, ms) | since the start | blocks of 512 tokens | - |
| bailian | Alibaba's Qwen usage traces (JSONL, s) | since the start | blocks of 16 | parent |
| servegen | ServeGen's client and total rates (CSV) | rates only | - | - |
| otel | OpenTelemetry GenAI spans (OTLP JSON, or JSONL of spans) | ns | - | conversation |
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from penstock.errors import ConfigError
from penstock.workload import otel

HOLE_S = 60.0
HOLE_FACTOR = 50.0
"""A pause is a hole when it is longer than HOLE_S and than this many times the 99th percentile of
all gaps."""


@dataclass(frozen=True, slots=True)
class Row:
    """One recorded request."""

    at_s: float
    """from the trace's first request"""
    input_tokens: int
    output_tokens: int
    session: str = ""
    parent: str = ""
    id: str = ""
    blocks: tuple[int, ...] = ()
    """names of the prompt's blocks, equal from the start where prefixes are shared"""
    line: int = 0


@dataclass(frozen=True, slots=True)
class Hole:
    """A stretch without any request, far longer than the gaps around it."""

    line: int
    at_s: float
    length_s: float


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace in order of time: requests, or (ServeGen) nothing but rates."""

    name: str
    format: str
    rows: tuple[Row, ...] = ()
    block_tokens: int = 0
    rates: tuple[tuple[float, float], ...] = ()
    """(seconds, requests/s) where the trace has rates alone"""
    rates_cv: float | None = None
    holes: tuple[Hole, ...] = ()
    notes: tuple[str, ...] = field(default=())
    """what was left out, and why"""

    @property
    def duration_s(self) -> float:
        if self.rates:
            step = self.rates[1][0] - self.rates[0][0] if len(self.rates) > 1 else 0.0
            return self.rates[-1][0] + step
        return self.rows[-1].at_s if self.rows else 0.0

    def without_holes(self) -> Trace:
        """The same with every hole cut out of the time."""
        removed, rows, holes = 0.0, [], list(self.holes)
        for row in self.rows:
            while holes and row.line >= holes[0].line:
                removed += holes.pop(0).length_s
            rows.append(replace(row, at_s=row.at_s - removed))
        return replace(self, rows=tuple(rows), holes=())


class _Fault(Exception):
    """(field, cause, cure) of a line that cannot be used."""

    def __init__(self, name: str, cause: str, cure: str) -> None:
        super().__init__(cause)
        self.name, self.cause, self.cure = name, cause, cure


class Skip(Exception):
    """A line that is well but is no request; the text says why."""


Parse = Callable[[Mapping[str, Any]], Row]


def parse(lines: Iterable[str], name: str, format: str | None = None) -> Trace:
    """Read a trace. format: one of FORMATS; None: told by its first line.

    Raises ConfigError naming file, line, field and cure for a line that is incomplete, negative or
    out of order, and for a trace without requests.
    """
    rows = iter(enumerate(lines, 1))
    head = next(((n, text.lstrip("\ufeff")) for n, text in rows if text.strip()), None)
    if head is None:
        raise ConfigError(f"{name}:1: the trace is empty.", cure="Give a file with requests.")
    kind = format or detect(head[1])
    if kind not in FORMATS:
        cause = f"{name}:{head[0]}: the format is unknown: {head[1].strip()[:60]!r}."
        raise ConfigError(cause, cure=f"Name it with --format: {', '.join(FORMATS)}.")
    everything = _chain(head, rows)
    if kind == "servegen":
        return _servegen(everything, name)
    if kind == "otel":
        return finish(name, kind, _from_otel(everything, name), 0)
    fields = (
        _csv_rows(everything) if kind in ("azure", "burstgpt") else _json_rows(everything, name)
    )
    parse_row, block_tokens = _ROWS[kind]
    return finish(name, kind, _parsed(fields, parse_row, name), block_tokens)


def detect(line: str) -> str | None:
    """The format that a first line looks like."""
    text = line.strip()
    if text.startswith(("{", "[")):
        for mark, kind in (("resourceSpans", "otel"), ("gen_ai.", "otel"), ("startTime", "otel"),
                           ("chat_id", "bailian"), ("hash_ids", "mooncake"),
                           ("input_length", "mooncake")):  # fmt: skip
            if mark in text:
                return kind
        return "otel" if text in ("{", "[") else None
    names = {part.strip().strip('"').lower() for part in text.split(",")}
    if {"contexttokens", "generatedtokens"} <= names:
        return "azure"
    if {"request tokens", "response tokens"} <= names:
        return "burstgpt"
    if {"rate_per_s"} <= names or {"total_rate_per_s"} <= names or _numbers(text, 6):
        return "servegen"
    return None


def _numbers(text: str, count: int) -> bool:
    """Whether a headerless ServeGen row: time, rate, cv, pattern, two parameters."""
    parts = text.split(",")
    return len(parts) == count and all(p.replace(".", "", 1).isdigit() for p in parts[:3])


def _chain(head: tuple[int, str], rows: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    yield head
    yield from rows


def _csv_rows(rows: Iterator[tuple[int, str]]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    number, header = next(rows)
    names = [part.strip() for part in next(csv.reader([header]))]
    for number, text in rows:
        if text.strip():
            values = next(csv.reader([text]))
            yield number, {k: v.strip() for k, v in zip(names, values, strict=False)}


def _json_rows(
    rows: Iterator[tuple[int, str]], name: str
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, text in rows:
        if not text.strip():
            continue
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            cause = f"{name}:{number}: not JSON: {error.msg}."
            raise ConfigError(cause, cure="Correct or remove that line.") from None
        if not isinstance(data, dict):
            cause = f"{name}:{number}: {text.strip()[:40]!r} is no object."
            raise ConfigError(cause, cure="One request a line, as {...}.")
        yield number, data


_Item = tuple[int, Row | str]
"""(line, the request or why it is none)"""


def _parsed(
    rows: Iterator[tuple[int, Mapping[str, Any]]], parse_row: Parse, name: str
) -> Iterator[_Item]:
    for number, data in rows:
        try:
            row = parse_row(data)
            if row.input_tokens < 1:
                raise _Fault("input tokens", f"are {row.input_tokens}", "A prompt has a token.")
            if row.output_tokens < 1:
                raise Skip("without output (failed, or cut off by the client)")
        except Skip as why:
            yield number, str(why)
        except _Fault as fault:
            cause = f"{name}:{number}: {fault.name}: {fault.cause}."
            raise ConfigError(cause, cure=fault.cure, param=fault.name) from None
        else:
            yield number, replace(row, line=number)


def finish(
    name: str, kind: str, items: Iterable[tuple[int, Row | str]], block_tokens: int
) -> Trace:
    """The trace of (line, request, or why the line is left out). Raises ConfigError when lines are
    out of order or none has a request."""
    rows: list[Row] = []
    skipped: dict[str, int] = {}
    for number, item in items:
        if isinstance(item, str):
            skipped[item] = skipped.get(item, 0) + 1
            continue
        if rows and item.at_s < rows[-1].at_s:
            cause = (
                f"{name}:{number}: time: {item.at_s:g} s comes after {rows[-1].at_s:g} s of line "
                f"{rows[-1].line}."
            )
            raise ConfigError(cause, cure="Sort the trace by time.", param="time")
        rows.append(item)
    if not rows:
        cause = f"{name}: the trace has no requests with output."
        raise ConfigError(cause, cure="Give a file with requests.")
    first = rows[0].at_s
    moved = tuple(replace(row, at_s=row.at_s - first) for row in rows)
    notes = tuple(f"{count} lines left out: {why}" for why, count in skipped.items())
    return Trace(name, kind, moved, block_tokens, holes=tuple(_holes(moved)), notes=notes)


def _holes(rows: tuple[Row, ...]) -> Iterator[Hole]:
    gaps = sorted(b.at_s - a.at_s for a, b in itertools.pairwise(rows))
    if not gaps:
        return
    limit = max(HOLE_S, HOLE_FACTOR * gaps[int((len(gaps) - 1) * 0.99)])
    for before, row in itertools.pairwise(rows):
        if row.at_s - before.at_s > limit:
            yield Hole(row.line, before.at_s, row.at_s - before.at_s)


# One parser a format


def _number(data: Mapping[str, Any], name: str, whole: bool = False) -> float:
    value = data.get(name)
    if value is None or value == "":
        raise _Fault(name, "is missing", "Complete the line, or remove it.")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise _Fault(name, f"is {value!r}, not a number", "Correct it.") from None
    if not 0 <= number < float("inf"):
        raise _Fault(name, f"is {number:g}: negative or endless", "Correct it, or remove the line.")
    if whole and number != int(number):
        raise _Fault(name, f"is {number:g}, not a whole number", "Correct it.")
    return number


def _size(data: Mapping[str, Any], name: str) -> int:
    return int(_number(data, name, whole=True))


def _azure(data: Mapping[str, Any]) -> Row:
    text = str(data.get("TIMESTAMP") or "")
    moment, _, fraction = text.partition(".")
    try:
        whole = datetime.fromisoformat(moment.strip().removesuffix("Z") + "+00:00").timestamp()
        part = float(f"0.{fraction.split('+')[0].rstrip('Z')}") if fraction else 0.0
    except ValueError:
        cause = f"is {text!r}, not a date and time"
        raise _Fault("TIMESTAMP", cause, "Write it like 2023-11-16 18:15:46.6805900.") from None
    return Row(whole + part, _size(data, "ContextTokens"), _size(data, "GeneratedTokens"))


def _burstgpt(data: Mapping[str, Any]) -> Row:
    session = str(data.get("Session ID") or "")
    return Row(
        _number(data, "Timestamp"),
        _size(data, "Request tokens"),
        _size(data, "Response tokens"),
        session if session not in ("-1", "nan") else "",
    )


def _blocks(data: Mapping[str, Any], tokens: int, size: int) -> tuple[int, ...]:
    value = data.get("hash_ids") or []
    if not isinstance(value, list) or not all(isinstance(v, int) and v >= 0 for v in value):
        raise _Fault("hash_ids", "is not a list of whole numbers", "Correct it.")
    if value and not (len(value) - 1) * size < tokens <= len(value) * size:
        cause = f"has {len(value)} blocks of {size} for {tokens} tokens"
        raise _Fault("hash_ids", cause, "One id for each block, the last one partly filled.")
    return tuple(value)


def _mooncake(data: Mapping[str, Any]) -> Row:
    tokens = _size(data, "input_length")
    return Row(
        _number(data, "timestamp") / 1000,
        tokens,
        _size(data, "output_length"),
        str(data.get("session_id") or ""),
        blocks=_blocks(data, tokens, 512),
    )


def _bailian(data: Mapping[str, Any]) -> Row:
    tokens = _size(data, "input_length")
    parent = str(data.get("parent_chat_id", -1))
    return Row(
        _number(data, "timestamp"),
        tokens,
        _size(data, "output_length"),
        parent="" if parent == "-1" else parent,
        id=str(data.get("chat_id", "")),
        blocks=_blocks(data, tokens, 16),
    )


_ROWS: dict[str, tuple[Parse, int]] = {
    "azure": (_azure, 0),
    "burstgpt": (_burstgpt, 0),
    "mooncake": (_mooncake, 512),
    "bailian": (_bailian, 16),
}
FORMATS = (*_ROWS, "servegen", "otel")


def _from_otel(rows: Iterator[tuple[int, str]], name: str) -> Iterator[_Item]:
    try:
        calls = sorted(otel.calls(list(rows)), key=lambda call: call.start_s)
    except otel.BadSpan as bad:
        cause = f"{name}:{bad.line}: {bad.field}: {bad.cause}."
        cure = "Export the spans again, or remove that one."
        raise ConfigError(cause, cure=cure, param=bad.field) from None
    for call in calls:
        if call.output_tokens < 1:
            yield call.line, "without output (failed, or cut off by the client)"
        else:
            yield (
                call.line,
                Row(
                    call.start_s,
                    call.input_tokens,
                    call.output_tokens,
                    call.session,
                    line=call.line,
                ),
            )


def _servegen(rows: Iterator[tuple[int, str]], name: str) -> Trace:
    """Total rate by time, clients (or models) summed; the cv weighted by rate."""
    number, header = next(rows)
    if header[0].isdigit():
        names, rows = ["t_s", "rate_per_s", "cv"], _chain((number, header), rows)
    else:
        names = [part.strip() for part in header.split(",")]
    key = "total_rate_per_s" if "total_rate_per_s" in names else "rate_per_s"
    totals: dict[float, float] = {}
    models, weighted = set(), 0.0
    for number, text in rows:
        data = dict(zip(names, text.strip().split(","), strict=False))
        try:
            rate = _number(data, key)
            at = _number(data, "t_s")
            weighted += rate * (_number(data, "cv") if "cv" in names and rate else 0.0)
        except _Fault as fault:
            cause = f"{name}:{number}: {fault.name}: {fault.cause}."
            raise ConfigError(cause, cure=fault.cure, param=fault.name) from None
        totals[at] = totals.get(at, 0.0) + rate
        models.add(data.get("model", ""))
    if len(models) > 1:
        cause = f"{name}: model: holds {len(models)} models ({', '.join(sorted(models))})."
        raise ConfigError(cause, cure="Keep the lines of one model.", param="model")
    total = sum(totals.values())
    if not total:
        raise ConfigError(f"{name}: the trace has no requests.", cure="Give another file.")
    first = min(totals)
    points = tuple((at - first, totals[at]) for at in sorted(totals))
    return Trace(name, "servegen", rates=points, rates_cv=weighted / total or None)
