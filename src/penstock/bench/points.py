"""What is measured: a workload as it is, or one replica between its two ends.

load      the workload's own times, or a trace's
serial    one request after the other: the least latency
rates     constant rates, one after the other
burst     all at once: the most throughput
sweep     serial, rates between a tenth and nine tenths of what the burst reached, burst
search    the highest constant rate that keeps every promise, by bisection
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, field, replace
from typing import Any

from penstock.bench.http import HttpClient
from penstock.bench.load import MAX_LAG_S, Load
from penstock.bench.prompts import Prompts
from penstock.bench.target import Target, find_target
from penstock.config.option import option
from penstock.errors import ConfigError
from penstock.report.records import RequestRecord
from penstock.report.run import Run, Summary, summarise
from penstock.workload.definition import Workload
from penstock.workload.sessions import TimedRequest

MODES = ("load", "serial", "rates", "burst", "sweep", "search")
SWEEP = (0.1, 0.3, 0.5, 0.7, 0.9)
ROUNDS = 6
"""Of the search's bisection: within 2% of the range."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The command's own options; each is described by its help text."""

    file: str = option(MISSING, "The workload file", positional=True)
    url: str = option(MISSING, "The server: http://host:port, with or without /v1")
    mode: str = option(
        "load",
        "`load` the workload's own times; `serial` one after the other; `rates` constant --rates;"
        " `burst` all at once; `sweep` from serial to burst; `search` the highest rate inside the"
        " SLO",
        choices=MODES,
    )
    rates: tuple[float, ...] = option((), "Constant rates (rates, search)", unit="requests/s",
                                      automatic="a sweep's")  # fmt: skip
    start_s: float = option(0.0, "Begin, from the workload's window", unit="seconds")
    duration_s: float = option(120.0, "Length of each point", unit="seconds")
    warm_up_s: float = option(10.0, "Not counted at the begin", unit="seconds")
    cool_down_s: float = option(10.0, "Not counted at the end", unit="seconds")
    speed: float = option(1.0, "Factor on the workload's rates")
    most_requests: int = option(256, "Requests of serial and burst", unit="requests")
    seed: int = option(0, "Seed of the requests")
    model: str | None = option(None, "Model to ask for", automatic="the first that is listed")
    api_key: str | None = option(None, "Key to send as a bearer token", automatic="none")
    endpoint: str = option(
        "completions",
        "`completions` sends token ids where the server takes them, `chat` sends messages",
        choices=("completions", "chat"),
    )
    vocab_size: int | None = option(None, "Token ids stay below this", unit="tokens",
                                    automatic="as the server says")  # fmt: skip
    timeout_s: float = option(600.0, "Longest that one request may take", unit="seconds")
    check: bool = option(
        False,
        "Be a gate: exit code 10 + i when promise i of the workload is broken (the first one that"
        " is), 9 for availability",
    )
    json: str | None = option(None, "File for the run (of several points: the last) as JSON",
                              automatic="none is written")  # fmt: skip
    html: str | None = option(None, "File for a page with plots", automatic="none is written")

    def validate(self) -> None:
        """Raise ConfigError naming the first option that is out of range."""
        rules = (
            ("duration_s", self.duration_s > self.warm_up_s + self.cool_down_s,
             "longer than --warm-up-s and --cool-down-s together"),
            ("speed", self.speed > 0, "positive"),
            ("rates", all(rate > 0 for rate in self.rates), "positive"),
            ("rates", self.mode != "rates" or bool(self.rates), "given for --mode rates"),
            ("timeout_s", self.timeout_s > 0, "positive"),
            ("most_requests", self.most_requests >= 1, "at least 1"),
        )  # fmt: skip
        for name, ok, rule in rules:
            if not ok:
                flag = "--" + name.replace("_", "-")
                raise ConfigError(f"{flag} must be {rule}.", cure="Correct it.", param=name)


@dataclass(slots=True)
class Point:
    """One run of several, by name: `load`, `serial`, `2.5/s`, `burst`."""

    name: str
    run: Run
    summary: Summary
    rate: float | None = None


Told = Callable[[str, Sequence[RequestRecord], int, int], None]
"""told(point, records that ended, open, all requests of the point)"""


@dataclass(slots=True)
class Bench:
    """A server, a workload, and the points that were measured."""

    options: RunOptions
    workload: Workload
    requests: Sequence[TimedRequest]
    """of the workload's stretch, times from its begin"""
    about: dict[str, Any]
    told: Told
    points: list[Point] = field(default_factory=list)

    def measure(self) -> list[Point]:
        """Raises ConfigError, AuthError, ModelNotFoundError, UnavailableError when nothing can be
        measured."""
        self.options.validate()
        if not self.requests:
            raise ConfigError("The workload has no request in that stretch.", param="duration_s")
        return asyncio.run(self._measure())

    async def _measure(self) -> list[Point]:
        options = self.options
        client = HttpClient(options.url, options.api_key, options.timeout_s)
        prompts = Prompts(options.seed, 16, 0, options.vocab_size or 0)
        try:
            target = await find_target(client, options.endpoint, options.model, prompts)
            self.about |= {"url": options.url, "model": target.model, "server": target.version}
            if options.mode == "load":
                await self._point(client, target, "load", _faster(self.requests, options.speed))
            elif options.mode == "serial":
                await self._serial(client, target)
            elif options.mode == "burst":
                await self._burst(client, target)
            elif options.mode == "search":
                await self._search(client, target)
            else:
                await self._sweep(client, target)
        finally:
            await client.close()
        return self.points

    async def _sweep(self, client: HttpClient, target: Target) -> None:
        rates = self.options.rates
        if self.options.mode == "sweep":
            await self._serial(client, target)
            burst = await self._burst(client, target)
            rates = rates or tuple(share * burst.summary.requests_per_s for share in SWEEP)
        for rate in rates:
            await self._at(client, target, rate)
        self.points.sort(key=lambda point: (point.name == "burst", point.rate or 0.0))

    async def _search(self, client: HttpClient, target: Target) -> None:
        given = self.options.rates
        low = min(given, default=0.0)
        high = max(given, default=0.0) or (await self._burst(client, target)).summary.requests_per_s
        if _keeps(await self._at(client, target, high)):
            return
        for _ in range(ROUNDS):
            middle = (low + high) / 2
            kept = _keeps(await self._at(client, target, middle))
            low, high = (middle, high) if kept else (low, middle)
        self.points.sort(key=lambda point: (point.name == "burst", point.rate or 0.0))

    @property
    def best_rate(self) -> float | None:
        """The highest constant rate that kept every promise; None: none did."""
        kept = [p.rate for p in self.points if p.rate is not None and _keeps(p)]
        return max(kept, default=None)

    async def _at(self, client: HttpClient, target: Target, rate: float) -> Point:
        count = max(1, round(rate * self.options.duration_s))
        requests = [replace(self._alone(number), at_s=number / rate) for number in range(count)]
        return await self._point(client, target, f"{rate:.3g}/s", requests, rate)

    async def _burst(self, client: HttpClient, target: Target) -> Point:
        count = min(self.options.most_requests, len(self.requests))
        requests = [replace(self._alone(number), at_s=0.0) for number in range(count)]
        return await self._point(client, target, "burst", requests)

    async def _serial(self, client: HttpClient, target: Target) -> Point:
        count = min(self.options.most_requests, len(self.requests))
        requests = [
            replace(self._alone(number), at_s=0.0, parents=(number - 1,) if number else ())
            for number in range(count)
        ]
        return await self._point(client, target, "serial", requests)

    def _alone(self, number: int) -> TimedRequest:
        """The workload's request of that number (again from the first after the last), by itself:
        nobody's answer is waited for."""
        request = self.requests[number % len(self.requests)]
        return replace(request, id=number, parents=(), wait_s=0.0)

    async def _point(
        self,
        client: HttpClient,
        target: Target,
        name: str,
        requests: Sequence[TimedRequest],
        rate: float | None = None,
    ) -> Point:
        total = len(requests)
        last = self.options.duration_s if name == "load" else math.inf
        load = Load(
            client, target, requests, lambda done, more: self.told(name, done, more, total), last
        )
        records = sorted(await load.run(), key=lambda record: record.due_s)
        run = Run(
            "measured", records, *self._span(name, records), self.workload.slo,
            self.workload.availability, self._origin(), dict(self.about), target.form.notes(),
        )  # fmt: skip
        summary = summarise(run)
        if summary.lag_p99_s > MAX_LAG_S:
            run.notes.append(
                f"the load generator was a bottleneck: requests were sent up to "
                f"{1e3 * summary.lag_p99_s:.1f} ms late (p99); measure from a faster machine"
            )
        self.points.append(Point(name, run, summary, rate))
        return self.points[-1]

    def _span(self, name: str, records: Sequence[RequestRecord]) -> tuple[float, float]:
        """Serial and burst have no steady state to wait for: they count whole."""
        if name in ("serial", "burst"):
            return 0.0, max((r.end_s or 0.0 for r in records), default=0.0) + 1e-9
        options = self.options
        return options.warm_up_s, options.duration_s - options.cool_down_s

    def _origin(self) -> dict[str, Any]:
        options = self.options
        return {
            "workload": options.file, "seed": options.seed, "start_s": options.start_s,
            "duration_s": options.duration_s * options.speed, "speed": options.speed,
        }  # fmt: skip


def _keeps(point: Point) -> bool:
    return point.summary.verdict is not None and point.summary.verdict.passed


def _faster(requests: Sequence[TimedRequest], speed: float) -> list[TimedRequest]:
    return [replace(request, at_s=request.at_s / speed) for request in requests]


def exit_code(summary: Summary) -> int:
    """0 when every promise is kept; 10 + i for the first broken one of the workload's clauses, 9
    for availability."""
    verdict = summary.verdict
    if verdict is None or verdict.passed:
        return 0
    for index, result in enumerate(verdict.clauses):
        if not result.passed:
            return 10 + index
    return 9
