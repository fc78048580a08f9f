from __future__ import annotations

from io import StringIO

from rich.console import Console

from penstock.debug.explain import Span
from penstock.report import logs
from penstock.report.stats import Spread


def shown(renderable: object) -> str:
    console = Console(width=120, file=StringIO())
    console.print(renderable)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_spans() -> None:
    text = shown(logs.spans("r", [Span("prefill", 0.5, 1.5, "chunk 1")], 2.0))
    assert "500.00" in text
    assert "1000.00" in text
    assert "50.0 %" in text


def test_latencies_without_observations_are_left_out() -> None:
    text = shown(logs.latencies("all", [("ttft", Spread.of([0.25])), ("e2e", Spread.of([]))]))
    assert "ttft" in text
    assert "e2e" not in text


def test_rows_cut_what_is_long() -> None:
    text = shown(logs.rows("", ["a"], [["x" * 500], [0.123456789]]))
    assert "…" in text
    assert "0.123457" in text
