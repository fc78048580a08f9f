"""docs/logs.md, made from the records of `core.records` and the docstrings of their fields."""

from __future__ import annotations

import ast
import inspect
from dataclasses import fields

from penstock.core import records
from penstock.core.records import KINDS

NESTED = (
    records.ChoiceRecord,
    records.Wait,
    records.EngineState,
    records.Device,
)
INTRO = """\
<!-- Made by tools/docs.py (make fix): edit src/penstock/core/records.py. -->

# Logs

`penstock serve --log-dir DIR` (and `batch run`, and `LLM(log_dir=...)`) writes one JSON object a
line into append-only segments `DIR/<start>-<number>.jsonl`. `t` names the kind of a line and comes
first; the schema is number {schema}. Each segment begins with a `header` and can be read alone.

Times inside a request are seconds since it was received, so that a record can be read alone;
`received_s` is Unix time. What is null was not reached, not measured, or redacted (then `redacted`
names it). A field may be added without a new schema number; one that changes its meaning, or goes,
needs one.

- **Whole or not there.** A line counts once its newline is there. A process that is killed leaves
  at most one torn line; the next start over the same folder closes it off, and writes a `lost` line
  for each request that was in flight (`begin` without `request`) and a `stop` line behind them.
- **Off the hot path.** Whoever serves appends to a queue (`--log-queue`); one thread makes and
  writes the lines. When the queue is full, steps are dropped and counted
  (`penstock:log_dropped_total`, and `lossy` in the records concerned).
- **Never in the way.** A full disk or a folder that cannot be written costs the lines, counted in
  `penstock:log_lost_lines_total` with `penstock:log_failed` at 1 and a warning; requests are
  served.
- **Bounded.** `--log-segment-bytes`, `--log-max-bytes` and `--log-max-age-s` rotate and delete;
  `--log-sample` keeps a share of the requests, `--log-redact` leaves parts of them out,
  `--log-fsync` says when the disk must have them.
- **Read by** `penstock logs`, `penstock replay`, `penstock doctor`, or whatever reads JSON lines.
"""


def render_docs() -> str:
    """The page."""
    parts = [INTRO.format(schema=records.SCHEMA)]
    for kind, record in KINDS.items():
        parts.append(f"## `{kind}`\n\n{_table(record)}")
    parts += [f"## {record.__name__}\n\n{_table(record)}" for record in NESTED]
    return "\n".join(parts)


def _table(record: type) -> str:
    notes = docstrings(record)
    rows = ["| field | type | meaning |", "| --- | --- | --- |"]
    for item in fields(record):
        kind = str(item.type).replace("|", "\\|")
        rows.append(f"| `{item.name}` | {kind} | {notes.get(item.name, '')} |")
    about = " ".join((inspect.getdoc(record) or "").split())
    return f"{about}\n\n" + "\n".join(rows) + "\n"


def docstrings(record: type) -> dict[str, str]:
    """The string under each field of a class, on one line."""
    (tree,) = ast.parse(inspect.getsource(record)).body
    assert isinstance(tree, ast.ClassDef)
    found: dict[str, str] = {}
    for before, after in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name):
            value = after.value if isinstance(after, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                found[before.target.id] = " ".join(value.value.split())
    return found
