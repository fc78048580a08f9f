from __future__ import annotations

import math

from rich.console import Console

from penstock.report.stats import Spread
from penstock.report.tables import number, spread_cells, table


def test_numbers_and_dashes() -> None:
    assert number(1234.56) == "1,234.6"
    assert number(math.nan) == "-"
    assert spread_cells(Spread.of([0.001, 0.003])) == ["2.0", "2.0", "2.9", "3.0"]


def test_a_table_shows_its_rows() -> None:
    console = Console(width=60)
    with console.capture() as capture:
        console.print(table("Title", ("name", "ms"), [("a", "1.0")]))
    assert all(word in capture.get() for word in ("Title", "name", "ms", "a", "1.0"))
