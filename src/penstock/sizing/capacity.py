"""How many requests a second one replica serves inside the SLO, by the roofline and a queue.

At a steady rate the running batch, the step time and the prefill work of a step settle together
(Little's law); waiting for prefill is a queue with general service times (Kingman 1961, whose
wait is close to exponential). The result is a sample of outcomes, judged by the same clauses as a
measured run. Near saturation every formula of this kind errs: `penstock simulate` is the check.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from penstock.sizing.roofline import Roofline
from penstock.workload.definition import Clause, Workload
from penstock.workload.draws import Draws, inverse_normal, spread_pair
from penstock.workload.lengths import draw_pair
from penstock.workload.slo import Outcome, Verdict, judge

SAMPLE = 256
"""Requests by which lengths and waits are represented."""
ROUNDS = 40
"""Of the fixed point, and of the search for the highest rate."""
FULLEST = 0.98
"""Highest utilisation that is looked at."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What one call asks for, as a sample of (input, uncached input, output) tokens."""

    calls: tuple[tuple[int, int, int], ...]
    cv: float
    """of the gaps between calls"""

    @property
    def mean_input(self) -> float:
        return sum(call[0] for call in self.calls) / len(self.calls)

    @property
    def mean_new(self) -> float:
        return sum(call[1] for call in self.calls) / len(self.calls)

    @property
    def mean_output(self) -> float:
        return sum(call[2] for call in self.calls) / len(self.calls)

    @property
    def running_tokens(self) -> float:
        """Mean tokens that a running request holds, weighted by how long it runs."""
        held = sum((i + o / 2) * o for i, _, o in self.calls)
        return held / sum(o for _, _, o in self.calls)

    @property
    def longest(self) -> int:
        return max(i + o for i, _, o in self.calls)


def demand_of(workload: Workload, count: int = SAMPLE) -> Demand:
    """Lengths as defined; of each prompt the share `prefix.reuse_actual` is in the cache."""
    lengths, new_share = workload.lengths, 1 - workload.prefix.reuse_actual
    calls = []
    for number in range(count):
        first, second = spread_pair(0, number)
        x = inverse_normal(first)
        tokens, output = draw_pair(
            lengths.input_tokens, lengths.output_tokens, lengths.correlation, Draws(1, number), x
        )
        if lengths.correlation == 0:
            output = lengths.output_tokens.quantile(second)
        tokens = max(1, round(tokens))
        calls.append((tokens, max(1, round(tokens * new_share)), max(1, round(output))))
    return Demand(tuple(calls), workload.arrivals.cv or 1.0)


@dataclass(frozen=True, slots=True)
class Load:
    """One replica at one rate."""

    calls_per_s: float
    stable: bool
    utilisation: float
    """the greater share of what there is: of prefill time, or of places for running requests"""
    running: float
    """mean requests that decode"""
    step_s: float
    prefill_share: float
    """of the step's work"""
    bound: str
    """of the mean step"""
    outcomes: tuple[Outcome, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """Of the engine: tokens of a step, requests at a time, tokens that the cache holds."""

    max_tokens: int
    max_seqs: int
    kv_tokens: int


class Replica:
    """A model on a device under a demand."""

    def __init__(self, roofline: Roofline, demand: Demand, limits: Limits) -> None:
        self.roofline, self.demand, self.limits = roofline, demand, limits
        self._context = demand.running_tokens
        self._new, self._output = demand.mean_new, demand.mean_output
        self._prefix = demand.mean_input - self._new / 2
        pairs = [spread_pair(7, number) for number in range(len(demand.calls))]
        self._lucks = [(luck, inverse_normal(crowd)) for luck, crowd in pairs]
        by_memory = max(1, int(limits.kv_tokens / max(1.0, self._context)))
        self.most_running = min(limits.max_seqs, by_memory)

    def at(self, calls_per_s: float) -> Load:
        """How it runs at that rate; `stable` is False where work would pile up. With pipeline
        stages the replica runs as many batches at a time, each with its part of the calls."""
        rate = calls_per_s / self.roofline.pp
        most = self.most_running / self.roofline.pp
        settled = self._settle(rate, most)
        if settled is None:
            return Load(calls_per_s, False, 1.0, most, math.inf, 0.0, "compute")
        step_s, running = settled
        full = self._step(self.limits.max_tokens - running, running)
        work = self._new * self._per_token(running)
        busy = max(rate * work, running / most)
        cost = self.roofline.step(rate * self._new * step_s, self._prefix, running, self._context)
        share = 1 - self._step(0, running) / step_s if step_s else 0.0
        outcomes = self._outcomes(rate, step_s, running, full) if busy < FULLEST else ()
        return Load(
            calls_per_s, busy < FULLEST, busy, running * self.roofline.pp, step_s, share,
            cost.bound, outcomes,
        )  # fmt: skip

    def _step(self, prefill: float, rows: float) -> float:
        return self.roofline.step(
            max(0.0, prefill), self._prefix if prefill > 0 else 0.0, rows, self._context
        ).seconds

    def _per_token(self, running: float) -> float:
        """Seconds that a prompt token adds, beside `running` decodes, at full steps."""
        tokens = max(1.0, self.limits.max_tokens - running)
        return max(0.0, self._step(tokens, running) - self._step(0, running)) / tokens

    def _settle(self, rate: float, most: float) -> tuple[float, float] | None:
        """(step seconds, running requests) at which both agree; None where there are none."""
        step_s = self._step(0, 1)
        running = 0.0
        for _ in range(ROUNDS):
            running = max(rate * self._output * step_s, min(1.0, rate))
            prefill = rate * self._new * step_s
            if running > most or prefill + running > self.limits.max_tokens:
                return None
            following = self._step(0, max(1.0, running)) + prefill * self._per_token(running)
            if abs(following - step_s) < 1e-6 * step_s:
                return following, running
            step_s = following
        return step_s, running

    def _outcomes(
        self, rate: float, step_s: float, running: float, full_s: float
    ) -> tuple[Outcome, ...]:
        chunk = max(1.0, self.limits.max_tokens - running)
        alone, tail = self._step(0, max(1.0, running)), chunk * self._per_token(running)
        services = [alone * math.ceil(new / chunk) + new / chunk * tail
                    for _, new, _ in self.demand.calls]  # fmt: skip
        count = len(services)
        mean = math.fsum(services) / count
        square = math.fsum(s * s for s in services) / count
        busy = min(rate * mean, 0.999)
        bursty = (self.demand.cv**2 + square / mean**2 - 1) / 2
        wait = busy / (1 - busy) * bursty * mean
        many = math.sqrt(max(running, 1.0))
        slope = (self._step(0, running + 2 * many) - alone) / (2 * many)
        made = []
        together = zip(self.demand.calls, services, self._lucks, strict=True)
        for number, ((_, _, output), service, (luck, normal)) in enumerate(together):
            queue = -wait / busy * math.log(luck / busy) if luck < busy else 0.0
            crowd = max(1.0, running + normal * many) - max(1.0, running)
            own = step_s + slope * min(crowd, self.most_running - running)
            ttft = queue + step_s / 2 + service
            total = ttft + own * (output - 1)
            stall = full_s if running > 1 and output > 1 else own
            made.append(
                Outcome(
                    float(number), True, total, ttft, own if output > 1 else None,
                    stall if output > 1 else None, queue,
                )
            )  # fmt: skip
        return tuple(made)

    def verdict(self, load: Load, clauses: Sequence[Clause]) -> Verdict:
        """The clauses at that load, windows left aside: a steady rate has none."""
        whole = [Clause(c.metric, c.percentile, c.limit_s) for c in clauses]
        return judge(whole, load.outcomes)

    def holds(self, calls_per_s: float, clauses: Sequence[Clause]) -> bool:
        load = self.at(calls_per_s)
        return load.stable and self.verdict(load, clauses).passed

    def capacity(self, clauses: Sequence[Clause]) -> float:
        """The highest rate that keeps every clause, in calls/s; 0 when none does."""
        low = 1e-6
        if not self.holds(low, clauses):
            return 0.0
        high = 1e-3
        while self.holds(high, clauses):
            low, high = high, high * 4
        for _ in range(ROUNDS // 2):
            middle = math.sqrt(low * high)
            low, high = (middle, high) if self.holds(middle, clauses) else (low, middle)
            if high / low < 1.005:
                break
        return low
