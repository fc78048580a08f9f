"""Where metrics are counted: plain numbers, cheap to write, made into Prometheus' form when read.

Written and read by one thread. prometheus-client renders the text and refuses a name that its
registry already has; its own instruments are not used, because a histogram there costs a lock
and a walk over all buckets an observation, and cannot show itself under a second name.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector

from penstock.observe.catalog import COMMON_LABELS, Kind, Metric

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


class Number:
    """A counter or a gauge: one value for each combination of its own labels."""

    __slots__ = ("values",)

    def __init__(self, metric: Metric) -> None:
        self.values: dict[tuple[str, ...], float] = {}
        if not metric.labels:
            self.values[()] = 0

    def add(self, amount: float = 1, *labels: str) -> None:
        self.values[labels] = self.values.get(labels, 0) + amount

    def set(self, value: float, *labels: str) -> None:
        """A gauge's value, or the total of a counter that is kept elsewhere."""
        self.values[labels] = value


class Histogram:
    """Observations by bucket; a bucket counts what is at most its bound and above the last."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, metric: Metric) -> None:
        self.bounds = metric.buckets
        self.counts = [0] * (len(metric.buckets) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def cumulative(self) -> list[tuple[str, float]]:
        """(upper bound as text, observations up to it)."""
        bounds = [*map(repr, self.bounds), "+Inf"]
        return list(zip(bounds, map(float, accumulate(self.counts)), strict=True))


class Board(Collector):
    """The instruments of a set of metrics, as prometheus-client wants to collect them."""

    def __init__(self, metrics: Iterable[Metric], common: Mapping[str, str]) -> None:
        """`common`: values of the labels that all metrics have."""
        self._metrics = tuple(metrics)
        self._common = [common[name] for name in COMMON_LABELS]
        self._beside: list[Board] = []
        self.numbers = {m.name: Number(m) for m in self._metrics if m.kind is not Kind.HISTOGRAM}
        self.histograms = {m.name: Histogram(m) for m in self._metrics if m.kind is Kind.HISTOGRAM}

    def beside(self, common: Mapping[str, str]) -> Board:
        """The same metrics with other values of the common labels, collected with these."""
        board = Board(self._metrics, common)
        self._beside.append(board)
        return board

    def number(self, metric: Metric) -> Number:
        return self.numbers[metric.name]

    def histogram(self, metric: Metric) -> Histogram:
        return self.histograms[metric.name]

    def describe(self) -> Iterator[Family]:
        """Names without samples: this is what the registry compares."""
        for metric in self._metrics:
            yield from self._families(metric)

    def collect(self) -> Iterator[Family]:
        for metric in self._metrics:
            for family in self._families(metric):
                for board in (self, *self._beside):
                    board._fill(family, metric)
                yield family

    def _families(self, metric: Metric) -> Iterator[Family]:
        kinds = {
            Kind.COUNTER: CounterMetricFamily,
            Kind.GAUGE: GaugeMetricFamily,
            Kind.HISTOGRAM: HistogramMetricFamily,
        }
        for name in metric.names:
            yield kinds[metric.kind](name, metric.help, labels=(*COMMON_LABELS, *metric.labels))

    def _fill(self, family: Family, metric: Metric) -> None:
        if isinstance(family, HistogramMetricFamily):
            found = self.histograms[metric.name]
            family.add_metric(self._common, found.cumulative(), found.sum)
        else:
            for labels, value in self.numbers[metric.name].values.items():
                family.add_metric([*self._common, *labels], value)
