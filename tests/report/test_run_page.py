from __future__ import annotations

from xml.etree import ElementTree

import pytest

from penstock.report.run import Run, summarise
from penstock.report.run_page import concurrency, distribution, drawn, over_time, page
from tests.report.test_records import record
from tests.report.test_run import run


def test_the_page_stands_alone_and_its_plots_are_well_formed() -> None:
    one = run(60)
    text = page(one, summarise(one), "A run <1>")
    assert "A run &lt;1&gt;" in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert len(drawn(one)) == 4
    for part in drawn(one):
        ElementTree.fromstring(part)


def test_open_requests_over_time() -> None:
    one = Run("measured", [record(0, 0.0), record(1, 1.0), record(2, 1.1)], 0, 3)
    points = concurrency(one)
    assert max(count for _, count in points) == 3
    assert points[0][1] == 1


def test_percentiles_over_time_and_distributions() -> None:
    points = [(float(i), float(i % 10)) for i in range(600)]
    values = [value for _, value in over_time(points, 50.0)][:60]
    assert values == pytest.approx([4.5] * 60, abs=0.6)
    curve = distribution([float(i) for i in range(1000)])
    assert curve[0] == (0.0, 0.001)
    assert curve[-1][1] == pytest.approx(0.995, abs=0.002)
    assert over_time([], 50.0) == distribution([]) == []
