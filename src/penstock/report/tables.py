"""Tables for the terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.table import Table

from penstock.report.stats import Spread

if TYPE_CHECKING:
    from collections.abc import Sequence


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Right-aligned columns, the first one left."""
    made = Table(title=title, title_justify="left", header_style="bold")
    for index, name in enumerate(columns):
        made.add_column(name, justify="left" if index == 0 else "right")
    for row in rows:
        made.add_row(*row)
    return made


def number(value: float, digits: int = 1) -> str:
    """A figure for a cell; a dash for what does not exist."""
    return "-" if math.isnan(value) else f"{value:,.{digits}f}"


def spread_cells(spread: Spread, scale: float = 1e3, digits: int = 1) -> list[str]:
    """mean, p50, p95, p99; by default of seconds, shown in milliseconds."""
    shown = spread.scaled(scale)
    return [number(x, digits) for x in (shown.mean, shown.p50, shown.p95, shown.p99)]
