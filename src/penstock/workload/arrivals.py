"""When sessions begin: a curve of rates, and arrivals that scatter around it.

The curve has one rate for each rate window. Its values follow the definition's mean, p95 and peak
exactly (a rate-duration curve); seasons, spikes and bursts decide which window gets which value,
so that they cannot contradict how much there is.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator

from penstock.errors import ConfigError
from penstock.workload.definition import Arrivals, Workload
from penstock.workload.draws import Draws

MAX_WINDOWS = 200_000
TAIL = 0.05
"""Share of the time above the p95 rate."""
FEW = 20
"""With fewer rate windows there is no 95th percentile."""


def rate_curve(workload: Workload, seed: int) -> list[float]:
    """Sessions/s in each rate window from the start of the workload's window.

    Raises ConfigError (with `param`) when the rates contradict each other or do not fit.
    """
    arrivals = workload.arrivals
    count = max(1, math.ceil(workload.window.duration_s / arrivals.rate_window_s - 1e-9))
    _check_count(arrivals, count)
    burst = _bursts(arrivals, count, Draws(seed, 1))
    values = rate_values(arrivals, count, burst.count(False))
    rates: list[float | None] = [None if on else 0.0 for on in burst]
    del values[: burst.count(False)]
    _place_spikes(arrivals, values, rates)
    free = [i for i, rate in enumerate(rates) if rate is None]
    scores = _scores(arrivals, count, Draws(seed, 2))
    free.sort(key=lambda i: scores[i])
    for index, value in zip(free, values, strict=True):
        rates[index] = value
    return [rate or 0.0 for rate in rates]


def _check_count(arrivals: Arrivals, count: int) -> None:
    flat = arrivals.peak_per_s <= arrivals.mean_per_s * 1.0001
    if count > MAX_WINDOWS:
        cause = f"gives {count} rate windows, more than {MAX_WINDOWS}."
        raise _wrong("rate_window_s", cause, "Make it longer.")
    if count < FEW and not flat:
        cause = f"gives only {count} rate windows: too few to tell mean, p95 and peak apart."
        raise _wrong("rate_window_s", cause, f"The window must hold {FEW} of them at least.")


def rate_values(arrivals: Arrivals, count: int, zeros: int = 0) -> list[float]:
    """The rates of `count` windows in rising order: `zeros` of them 0, 95% up to p95, the last the
    peak, their mean as defined. Raises ConfigError when no such rates exist."""
    mean, p95, peak = arrivals.mean_per_s, arrivals.p95_per_s, arrivals.peak_per_s
    if count < FEW:
        return [mean] * count
    if zeros / count >= 1 - TAIL and p95 > 0:
        cause = f"is {p95:g}, but bursts are on for only {1 - zeros / count:.1%} of the time."
        raise _wrong("p95_per_s", cause, "Set it to 0, or make off_s shorter.")

    def values(bend: float) -> list[float]:
        return [_rate(i, count, zeros, p95, peak, bend) for i in range(count)]

    def average(bend: float) -> float:
        return math.fsum(values(bend)) / count

    low, high = -1.0, 3.0  # a greater bend keeps the rate lower for longer
    least, most = average(high), average(low)
    if not least * 0.98 <= mean <= most * 1.02:
        cause = f"is {mean:g}; with these p95 and peak it is between {least:.3g} and {most:.3g}."
        raise _wrong("mean_per_s", cause, "Correct mean_per_s, p95_per_s or peak_per_s.")
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if average(middle) > mean else (low, middle)
    return values((low + high) / 2)


def _rate(index: int, count: int, zeros: int, p95: float, peak: float, bend: float) -> float:
    """bend -1 … 0: the tail's curvature up to 3; 0 … 1: the lowest rate from p95 down to 0;
    1 … 2: the curvature of the low part up to 64; 2 … 3: the tail's up to 300."""
    if index < zeros:
        return 0.0
    place, start = index / (count - 1), zeros / (count - 1)
    tail = 1 - TAIL
    lowest = 1 - min(max(bend, 0.0), 1.0)
    steep = math.pow(64, min(max(bend - 1, 0.0), 1.0))
    sharp = 3.0 * math.pow(100, max(bend - 2, 0.0)) * math.pow(30, min(bend, 0.0))
    if start >= tail:
        floor = peak * lowest
        return floor + (peak - floor) * math.pow((place - start) / (1 - start or 1), steep)
    if place <= tail:
        floor = p95 * lowest
        return floor + (p95 - floor) * math.pow((place - start) / (tail - start), steep)
    return p95 + (peak - p95) * math.pow((place - tail) / TAIL, sharp)


def _bursts(arrivals: Arrivals, count: int, draws: Draws) -> list[bool]:
    """Which windows are on. Bursts and pauses have exponential lengths, scaled so that their
    shares of the time are exact."""
    if arrivals.process != "on_off":
        return [True] * count
    on_s, off_s = arrivals.on_s or 0.0, arrivals.off_s or 0.0
    total = count * arrivals.rate_window_s
    cycles = max(1, round(total / (on_s + off_s)))
    ons = [draws.exponential() for _ in range(cycles)]
    offs = [draws.exponential() for _ in range(cycles)]
    on_total = round(count * on_s / (on_s + off_s))
    lengths = [_whole(ons, max(1, on_total)), _whole(offs, count - max(1, on_total))]
    states: list[bool] = []
    for off, on in zip(lengths[1], lengths[0], strict=True):
        states += [False] * off + [True] * on
    return states


def _whole(parts: list[float], total: int) -> list[int]:
    """Whole numbers in proportion to `parts` with exactly that sum."""
    scale, running, cut = total / math.fsum(parts), 0.0, 0
    result = []
    for part in parts:
        running += part * scale
        result.append(round(running) - cut)
        cut = round(running)
    return result


def _place_spikes(arrivals: Arrivals, values: list[float], rates: list[float | None]) -> None:
    """Give the windows of each spike the values nearest to its rate, and take these away."""
    for number, spike in enumerate(arrivals.spikes):
        wanted = spike.factor * arrivals.mean_per_s
        first = int(spike.at_s // arrivals.rate_window_s)
        last = max(first + 1, round((spike.at_s + spike.duration_s) / arrivals.rate_window_s))
        for index in range(first, min(last, len(rates))):
            if rates[index] is not None:
                continue
            at = min(bisect_left(values, wanted), len(values) - 1)
            if at and abs(values[at - 1] - wanted) < abs(values[at] - wanted):
                at -= 1
            if abs(values[at] - wanted) > 0.25 * wanted:
                cause = (
                    f"wants {wanted:.3g}/s for {spike.duration_s:g} s; mean, p95 and peak leave "
                    f"{values[at]:.3g}/s at best."
                )
                cure = "Raise peak_per_s or p95_per_s, or make the spike lower or shorter."
                raise _wrong(f"spikes[{number}].factor", cause, cure)
            rates[index] = values.pop(at)


def _scores(arrivals: Arrivals, count: int, draws: Draws) -> list[float]:
    """How busy each window is among all; without seasons a slow wave of random phase."""
    step = arrivals.rate_window_s
    waves = [(s.period_s, s.amplitude, s.peak_at_s) for s in arrivals.seasons]
    if not waves:
        total = count * step
        waves = [(total / n, 1 / n, draws.uniform() * total) for n in (1, 3, 7, 17)]
    return [
        sum(a * math.cos(2 * math.pi * ((i + 0.5) * step - at) / p) for p, a, at in waves)
        for i in range(count)
    ]


def _wrong(name: str, cause: str, cure: str) -> ConfigError:
    return ConfigError(cause, cure=cure, param=f"arrivals.{name}")


def times(workload: Workload, rates: list[float], seed: int) -> Iterator[float]:
    """Seconds from the window's start at which sessions begin, in order.

    A renewal process of mean gap 1 is drawn and its time is stretched by the curve of rates
    (time-rescaling), so that `cv` holds for the gaps wherever the rate is steady.
    """
    arrivals = workload.arrivals
    draws = Draws(seed, 3)
    step = arrivals.rate_window_s
    shape = 1 / (arrivals.cv or 1.0) ** 2

    def gap() -> float:
        if arrivals.process == "constant":
            return 1.0
        if arrivals.process == "gamma" and shape != 1:
            return draws.gamma(shape) / shape
        return draws.exponential()

    until = gap() * (draws.uniform() if arrivals.process == "constant" else 1.0)
    passed = 0.0
    for index, rate in enumerate(rates):
        volume = rate * step
        while until < passed + volume:
            at = (index + (until - passed) / volume) * step
            if at >= workload.window.duration_s:
                return
            yield at
            until += gap()
        passed += volume


def windowed_rates(times_s: list[float], duration_s: float, window_s: float) -> list[float]:
    """Measured rate in each window of that length, in order of time."""
    counts = [0] * max(1, round(duration_s / window_s))
    for at in times_s:
        counts[min(int(at // window_s), len(counts) - 1)] += 1
    return [count / window_s for count in counts]


def summary(rates: list[float]) -> tuple[float, float, float]:
    """(mean, p95, peak) of a curve of rates, the p95 linear between neighbours."""
    ordered = sorted(rates)
    place = (len(ordered) - 1) * (1 - TAIL)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    p95 = ordered[low] + (ordered[high] - ordered[low]) * (place - low)
    return math.fsum(ordered) / len(ordered), p95, ordered[-1]
