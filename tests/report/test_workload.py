"""Both drawings tell the rates and lengths that were made."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from penstock.report.workload import Picture, html, spark, terminal
from penstock.workload.archetypes import chatbot
from penstock.workload.definition import Window
from penstock.workload.sessions import Generator


@pytest.fixture(scope="module")
def picture() -> Picture:
    workload = replace(chatbot(), window=Window("2026-11-02", 86400.0))
    generator = Generator(workload)
    return Picture(workload, generator.rates, list(generator.requests(sessions=300)))


def test_the_terminal_tells_what_is_defined_and_what_was_made(picture: Picture) -> None:
    console = Console(file=StringIO(), width=120)
    console.print(terminal(picture))
    assert isinstance(console.file, StringIO)
    text = console.file.getvalue()
    for words in ("mean 4, p95 9, peak 20", "ttft p95 <= 0.45 s", "1,200", "0.700 defined",
                  "input tokens p95", "peak / mean"):  # fmt: skip
        assert words in text
    assert "█" in text


def test_the_page_is_self_contained(picture: Picture) -> None:
    page = html(picture)
    assert page.count("<svg") == 3
    assert "<script" not in page
    assert "src=" not in page
    assert "p95" in page


def test_bars_show_peaks() -> None:
    values = [0.0] * 1000
    values[500] = 8.0
    line = spark(values, 10)
    assert len(line) == 10
    assert line.count("█") == 1
    assert line[5] == "█"
    assert spark([0.0, 0.0]) == "  "
