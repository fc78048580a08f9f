"""Instruments: bucket borders, labels, and what reaches Prometheus' form."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from penstock.observe.catalog import COMMON_LABELS, Kind, Metric
from penstock.observe.instruments import Board, Histogram, Number

COMMON = dict(zip(COMMON_LABELS, ("m", "0"), strict=True))


def test_a_bound_belongs_to_its_bucket() -> None:
    found = Histogram(Metric("h", Kind.HISTOGRAM, "", "", buckets=(1.0, 2.5)))
    for value in (0.0, 1.0, 1.5, 2.5, 2.6):
        found.observe(value)
    found.observe(9.0, times=3)
    assert found.cumulative() == [("1.0", 2.0), ("2.5", 4.0), ("+Inf", 8.0)]
    assert found.sum == 7.6 + 27


def test_a_number_without_labels_starts_at_zero() -> None:
    plain = Number(Metric("n", Kind.COUNTER, "", ""))
    labelled = Number(Metric("n", Kind.COUNTER, "", "", labels=("a",)))
    assert plain.values == {(): 0}
    assert labelled.values == {}
    labelled.add(2, "x")
    labelled.add(3, "x")
    labelled.set(1, "y")
    assert labelled.values == {("x",): 5, ("y",): 1}


def test_an_alias_shows_the_same_numbers() -> None:
    metrics = [
        Metric("c", Kind.COUNTER, "", "", labels=("a",), aliases=("vllm:c", "vllm:d")),
        Metric("h", Kind.HISTOGRAM, "", "", buckets=(1.0,), aliases=("vllm:h_total",)),
    ]
    board = Board(metrics, COMMON)
    board.number(metrics[0]).add(4, "x")
    board.histogram(metrics[1]).observe(0.5)
    registry = CollectorRegistry()
    registry.register(board)
    labels = {**COMMON, "a": "x"}
    for name in ("penstock:c_total", "vllm:c_total", "vllm:d_total"):
        assert registry.get_sample_value(name, labels) == 4
    for name in ("penstock:h", "vllm:h_total"):
        assert registry.get_sample_value(name + "_count", COMMON) == 1
        assert registry.get_sample_value(name + "_bucket", {**COMMON, "le": "1.0"}) == 1
        assert registry.get_sample_value(name + "_sum", COMMON) == 0.5
