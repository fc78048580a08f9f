from __future__ import annotations

from io import StringIO

from rich.console import Console

from penstock.report.run import summarise
from penstock.report.run_tables import difference, errors_of, headline, render
from tests.report.test_run import run


def shown(part: object) -> str:
    console = Console(file=StringIO(), width=140)
    console.print(part)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_the_terminal_shows_figures_promises_and_errors() -> None:
    one = run()
    one.notes.append("something to know")
    text = shown(render(one, summarise(one), [("cost", "12 USD")]))
    for word in ("16 due, 15 answered", "1 timeout", "12 USD", "FAIL  itl p50", "pass  ttft p99",
                 "FAIL  availability", "note: something"):  # fmt: skip
        assert word in text


def test_a_simulation_prints_its_errors() -> None:
    summary = summarise(run())
    measured = headline(summary) | {"ttft_p50_s": 0.4, "hit_rate": 0.25}
    text = shown(errors_of(summary, measured))
    assert "+25.0%" in text
    assert "-5.0 points" in text
    assert difference("ttft_p50_s", 1.0, 0.0) == "-"
