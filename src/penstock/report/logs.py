"""Tables of logs for the terminal: plain figures in, lines and tables out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from rich.table import Table

from penstock.report.stats import Spread
from penstock.report.tables import number, spread_cells, table


class Piece(Protocol):
    """`debug.explain.Span` is one."""

    @property
    def name(self) -> str: ...

    @property
    def detail(self) -> str: ...

    @property
    def begin(self) -> float: ...

    @property
    def s(self) -> float: ...


def spans(title: str, pieces: Iterable[Piece], total_s: float) -> Table:
    """What followed what, in milliseconds."""
    made = Table(title=title, title_justify="left", header_style="bold")
    for name in ("from ms", "ms", "share"):
        made.add_column(name, justify="right")
    made.add_column("what")
    made.add_column("how", overflow="fold")
    for piece in pieces:
        share = 100 * piece.s / total_s if total_s else 0.0
        made.add_row(
            f"{piece.begin * 1e3:.2f}",
            f"{piece.s * 1e3:.2f}",
            f"{share:.1f} %",
            piece.name,
            piece.detail,
        )
    return made


def latencies(title: str, spreads: Sequence[tuple[str, Spread]]) -> Table:
    """A row a latency, in milliseconds; those without observations are left out."""
    rows = [[name, f"{s.count:,}", *spread_cells(s)] for name, s in spreads if s.count]
    return table(title, ("latency", "count", "mean ms", "p50", "p95", "p99"), rows)


def rows(title: str, names: Sequence[str], found: Sequence[Sequence[Any]]) -> Table:
    """Any result; long values are cut."""
    made = Table(title=title or None, title_justify="left", header_style="bold")
    for name in names:
        made.add_column(name, overflow="fold")
    for row in found:
        made.add_row(*(_cell(value) for value in row))
    return made


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return number(value, 6 if abs(value) < 1 else 3)
    text = str(value)
    return text if len(text) <= 200 else text[:197] + "…"
