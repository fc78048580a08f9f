"""Plots are well-formed SVG that shows the data; pages are well-formed HTML."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.report import svg

NUMBERS = st.floats(0, 1e9, allow_nan=False)
NS = "{http://www.w3.org/2000/svg}"


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=20))
def test_lines_stay_inside_the_frame(points: list[tuple[float, float]]) -> None:
    root = ElementTree.fromstring(svg.lines("A & B", "x", "y", [("<one>", points)]))
    (line,) = root.findall(f"{NS}polyline")
    drawn = [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]
    assert len(drawn) == len(points)
    for x, y in drawn:
        assert svg.LEFT - 0.1 <= x <= svg.WIDTH - svg.RIGHT + 0.1
        assert svg.TOP - 0.1 <= y <= svg.HEIGHT - svg.BOTTOM + 0.1


def test_a_histogram_has_the_shares() -> None:
    root = ElementTree.fromstring(svg.histogram("Lengths", "tokens", [10.0] * 3 + [1000.0], bins=2))
    low, high = (float(bar.attrib["height"]) for bar in root.findall(f"{NS}rect"))
    assert low == pytest.approx(3 * high, abs=0.2)
    assert svg.histogram("Lengths", "tokens", [0.0]) == ""
    assert svg.lines("Rates", "x", "y", [("none", [])]) == ""


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [(0, 20, [0, 5, 10, 15, 20]), (0, 0.9, [0, 0.2, 0.4, 0.6, 0.8]), (3, 3, [3])],
)
def test_ticks_are_round(low: float, high: float, wanted: list[float]) -> None:
    assert svg.ticks(low, high) == pytest.approx(wanted)


def test_a_page_escapes_and_needs_nothing_else() -> None:
    page = svg.page("A <b>", [svg.rows("Facts", [("x<y", "1 & 2")])])
    root = ElementTree.fromstring(page.split("\n", 0)[0].replace("<!doctype html>", "")
                                  .replace('<meta charset="utf-8">', ""))  # fmt: skip
    assert "".join(root.itertext()).count("x<y") == 1
    assert "http" not in page
