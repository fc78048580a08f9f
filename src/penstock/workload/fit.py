"""A workload file from a trace: what was measured replaces what an archetype only illustrates."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from penstock.errors import ConfigError
from penstock.workload import replay
from penstock.workload.arrivals import FEW, summary, windowed_rates
from penstock.workload.definition import Arrivals, Lengths, Prefix, PrefixNode, Window, Workload
from penstock.workload.lengths import Distribution, empirical
from penstock.workload.sessions import ideal_reuse
from penstock.workload.traces import Row, Trace

POINTS = 2000
WINDOWS_S = (60.0, 30.0, 10.0, 5.0, 1.0)


@dataclass(frozen=True, slots=True)
class Fitted:
    """The definition, and what in it comes from the archetype and not from the trace."""

    workload: Workload
    notes: tuple[str, ...]


def fit(trace: Trace, base: Workload, file: str, keep_times: bool = False) -> Fitted:
    """Put the trace's rates, lengths and prefix reuse into an archetype's definition.

    keep_times: replay the recorded times (`file` names the trace) in place of a fitted process.
    Raises ConfigError when the trace is too short to tell a rate.
    """
    notes = list(trace.notes)
    if trace.rates:
        window = trace.rates[1][0] - trace.rates[0][0] if len(trace.rates) > 1 else 0.0
        calls = base.calls_per_session
        rates = [rate / calls for _, rate in trace.rates]
        cv: float | None = trace.rates_cv
        notes.append(
            "lengths, sessions and prefixes are the archetype's, since the trace has rates only; "
            f"its requests/s are divided by {calls:.3g} calls a session"
        )
        base = replace(base, arrivals=_arrivals(rates, window, cv, None, notes))
        return Fitted(_named(base, trace), tuple(notes))
    window = _rate_window(trace)
    times = [row.at_s for row in trace.rows]
    rates = windowed_rates(times, trace.duration_s, window)
    replayed = file if keep_times else None
    arrivals = _arrivals(rates, window, _cv(times, rates, window), replayed, notes)
    one = Distribution(kind="fixed", value=1.0)
    sessions = replace(base.sessions, turns=one, fan_out=one)
    notes.append("each request counts as a session of its own: the trace tells no think times")
    lengths = Lengths(
        empirical([row.input_tokens for row in trace.rows]),
        empirical([row.output_tokens for row in trace.rows]),
        round(_correlation(trace.rows), 3),
    )
    prefix = _prefix(trace, base.prefix, lengths.input_tokens, notes)
    fitted = replace(base, arrivals=arrivals, lengths=lengths, sessions=sessions, prefix=prefix)
    return Fitted(_named(fitted, trace), tuple(notes))


def _named(workload: Workload, trace: Trace) -> Workload:
    window = Window(workload.window.start, round(max(trace.duration_s, 1.0), 3))
    return replace(workload, name=f"{workload.name}-{trace.format}", window=window)


def _rate_window(trace: Trace) -> float:
    for window in WINDOWS_S:
        if trace.duration_s / window >= FEW:
            return window
    cause = f"{trace.name}: lasts {trace.duration_s:g} s: too short to tell a rate."
    raise ConfigError(cause, cure=f"Give {FEW} seconds at least.", param="time")


def _arrivals(
    rates: Sequence[float], window: float, cv: float | None, file: str | None, notes: list[str]
) -> Arrivals:
    mean, p95, peak = (round(rate, 6) for rate in summary(list(rates)))
    if file is not None:
        return Arrivals("trace", mean, p95, peak, window, trace=file)
    if cv is not None and abs(cv - 1) > 0.1:
        return Arrivals("gamma", mean, p95, peak, window, cv=round(min(max(cv, 0.05), 20.0), 3))
    notes.append("arrivals scatter like a Poisson process (cv of gaps near 1)")
    return Arrivals("poisson", mean, p95, peak, window)


def _cv(times: Sequence[float], rates: Sequence[float], window: float) -> float | None:
    """Of the gaps in units of their window's mean gap, so that slow changes do not count."""
    gaps = [
        (b - a) * rates[min(int(b // window), len(rates) - 1)] for a, b in itertools.pairwise(times)
    ]
    mean = math.fsum(gaps) / len(gaps) if gaps else 0.0
    if not mean:
        return None
    return math.sqrt(math.fsum((gap - mean) ** 2 for gap in gaps) / len(gaps)) / mean


def _correlation(rows: Sequence[Row]) -> float:
    """Of the underlying normals: by ranks (Spearman), brought to Pearson's 2 sin(pi r / 6)."""
    xs = _ranks([row.input_tokens for row in rows])
    ys = _ranks([row.output_tokens for row in rows])
    middle = (len(rows) - 1) / 2
    top = math.fsum((x - middle) * (y - middle) for x, y in zip(xs, ys, strict=True))
    bottom = math.sqrt(
        math.fsum((x - middle) ** 2 for x in xs) * math.fsum((y - middle) ** 2 for y in ys)
    )
    return 2 * math.sin(math.pi * top / bottom / 6) if bottom else 0.0


def _ranks(values: Sequence[float]) -> list[float]:
    """Place of each value in rising order, ties sharing their mean place."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    ranks = [0.0] * len(values)
    start = 0
    for place, index in enumerate(order):
        last = place + 1 == len(order) or values[order[place + 1]] != values[index]
        if last:
            for tied in order[start : place + 1]:
                ranks[tied] = (start + place) / 2
            start = place + 1
    return ranks


def _prefix(trace: Trace, base: Prefix, inputs: Distribution, notes: list[str]) -> Prefix:
    """One shared node that gives the reuse that an endless cache would have had."""
    if not trace.block_tokens:
        notes.append("prefix reuse is set to 0: the trace tells nothing of prefixes")
        return Prefix(0.0, 0.0, base.window_s)
    ideal = ideal_reuse(replay.requests(trace))
    notes.append("one shared node stands for the trace's prefix tree; replay keeps the tree itself")
    lengths = [inputs.quantile((i + 0.5) / POINTS) for i in range(POINTS)]
    low, high = 0, round(lengths[-1])
    while low < high:
        middle = (low + high + 1) // 2
        shared = sum(min(middle, tokens - 1) for tokens in lengths) / sum(lengths)
        low, high = (middle, high) if shared <= ideal else (low, middle - 1)
    nodes = (PrefixNode("shared", low),) if low else ()
    share = round(ideal, 4) if nodes else 0.0
    return Prefix(share, share, base.window_s, nodes)
