"""The dashboard's JSON; that Prometheus takes its expressions is tested with a real one."""

from __future__ import annotations

import json
import re

import pytest

from penstock.observe import catalog as c
from penstock.observe import grafana


def names() -> set[str]:
    found: set[str] = set()
    for metric in c.CATALOG:
        ends = {
            c.Kind.COUNTER: ["_total"],
            c.Kind.GAUGE: [""],
            c.Kind.HISTOGRAM: ["_bucket", "_sum", "_count"],
        }
        found.update(metric.own_name + end for end in ends[metric.kind])
    return found


def test_every_panel_asks_for_metrics_that_exist() -> None:
    made = json.loads(grafana.render())
    asked = {
        name
        for panel in made["panels"]
        for target in panel["targets"]
        for name in re.findall(r"penstock:\w+", target["expr"])
    }
    assert len(asked) > 20
    assert asked <= names()


def test_panels_do_not_overlap() -> None:
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in grafana.dashboard()["panels"]]
    assert len(set(places)) == len(places)
    assert max(x for x, _ in places) + grafana.WIDTH <= 24


def test_an_expression_fits_its_kind_of_metric() -> None:
    for make in (grafana.level, grafana.quantiles, grafana.mean):
        with pytest.raises(AssertionError):
            make(c.SUCCESS)
    with pytest.raises(AssertionError):
        grafana.rate(c.RUNNING)
