"""How many replicas a curve of rates needs: at its peak, over time, with failures and starts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from penstock.workload.arrivals import rate_curve
from penstock.workload.definition import Workload

REPLICA_UP = 0.999
"""Share of the time that one replica is well, repairs included."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Model calls/s in each rate window."""

    calls_per_s: tuple[float, ...]
    window_s: float

    @property
    def mean(self) -> float:
        return math.fsum(self.calls_per_s) / len(self.calls_per_s)

    @property
    def peak(self) -> float:
        return max(self.calls_per_s)


def rates_of(workload: Workload, measured: Sequence[float] = (), seed: int = 0) -> Rates:
    """Sessions/s times calls a session: as though all calls of a session came at once, which is
    the safe side. measured: the curve of a replayed trace, in sessions/s."""
    curve = list(measured) or rate_curve(workload, seed)
    calls = workload.calls_per_session
    return Rates(tuple(rate * calls for rate in curve), workload.arrivals.rate_window_s)


def waits(workload: Workload) -> bool:
    """Whether its work may stand in the queue: then a fleet may be down to no replica, too."""
    limits = [clause.limit_s for clause in workload.slo if clause.metric == "ttlt_s"]
    queues = workload.overload.policy == "queue" and workload.slo_class == "batch"
    return queues and bool(limits)


def spread_out(workload: Workload, rates: Rates) -> Rates:
    """The rates that must be served, moment by moment.

    Work that may wait is spread over half of its time limit (the longest time in the queue, where
    that is less); other work is served as it comes.
    """
    if not waits(workload):
        return rates
    limit = min(clause.limit_s for clause in workload.slo if clause.metric == "ttlt_s") / 2
    if workload.overload.queue_max_s is not None:
        limit = min(limit, workload.overload.queue_max_s)
    span = max(1, round(limit / rates.window_s))
    padded = (*rates.calls_per_s, *(0.0,) * (span - 1))
    late = averaged((*(0.0,) * (span - 1), *padded), span)
    return Rates(tuple(late), rates.window_s)


def averaged(values: Sequence[float], span: int) -> list[float]:
    """Means over `span` neighbours, one for each place where a whole span begins."""
    span = min(span, len(values))
    total = math.fsum(values[:span])
    means = [total / span]
    for leaving, entering in zip(values, values[span:], strict=False):
        total += entering - leaving
        means.append(total / span)
    return means


def replicas_for(rate: float, capacity: float, headroom: float) -> int:
    """N = ceil(rate / (capacity · headroom)), at least 1."""
    return max(1, math.ceil(rate / (capacity * headroom) - 1e-9))


def spares_for(replicas: int, wanted: float, up: float = REPLICA_UP) -> int:
    """Replicas beyond `replicas` so that as many are up at least the share `wanted` of the time
    (each is up independently, the share `up` of it)."""
    spares = 0
    while _at_least(replicas, replicas + spares, up) < wanted:
        spares += 1
    return spares


def _at_least(needed: int, total: int, up: float) -> float:
    """Probability that at least `needed` of `total` are up: the few failures are summed."""
    chance = 0.0
    log_up, log_down = math.log(up), math.log(1 - up)
    for down in range(total - needed + 1):
        ways = math.lgamma(total + 1) - math.lgamma(down + 1) - math.lgamma(total - down + 1)
        chance += math.exp(ways + (total - down) * log_up + down * log_down)
    return chance


@dataclass(frozen=True, slots=True)
class Scaling:
    """A fleet that follows its load."""

    buffer: int
    """ready replicas that wait, for what arrives while another one starts"""
    mean_replicas: float
    utilisation: float
    """of the replicas paid for: served calls of those that they could serve"""


def scale(
    rates: Rates, capacity: float, headroom: float, start_s: float, most: int, to_zero: bool
) -> Scaling:
    """Replicas by the rate of each window plus a buffer as large as the greatest rise within a
    start, `most` at the most. to_zero: work waits for a start, so that there is no buffer, and no
    replica where there is no work."""
    if to_zero:
        counts = [
            min(most, replicas_for(rate, capacity, headroom)) if rate > 1e-9 else 0
            for rate in rates.calls_per_s
        ]
        mean = math.fsum(counts) / len(counts)
        return Scaling(0, mean, rates.mean / capacity / mean)
    span = max(1, math.ceil(start_s / rates.window_s))
    curve = rates.calls_per_s
    rise = max(max(curve[i : i + span + 1]) - rate for i, rate in enumerate(curve))
    buffer = math.ceil(rise / (capacity * headroom) - 1e-9)
    each = [min(most, replicas_for(rate, capacity, headroom) + buffer) for rate in curve]
    mean = math.fsum(each) / len(each)
    return Scaling(buffer, mean, rates.mean / capacity / mean)
