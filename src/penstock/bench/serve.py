"""`penstock bench serve`: a closed loop of clients at rising concurrency against one URL.

Each level keeps `concurrency` requests in flight until `num_requests` are done. Prompts are new
in every level and, unless a seed is given, in every run, so that a prefix cache that an earlier
run filled cannot flatter a later one.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable
from dataclasses import MISSING, asdict, dataclass, field, replace
from typing import Any

from penstock.bench.client import Exchange, count_errors, encode, exchange
from penstock.bench.http import HttpClient
from penstock.bench.prompts import Prompts
from penstock.bench.roofline import Roofline, read_counters, roofline
from penstock.bench.target import Target, find_target
from penstock.config.option import option
from penstock.errors import ConfigError
from penstock.report.machine import command_line, machine_info
from penstock.report.stats import Spread

METRICS = ("ttft", "tpot", "itl", "e2e")
"""As `core.timeline` defines them, from the client's side."""


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """The command's own options; each is described by its help text."""

    url: str = option(MISSING, "The server: http://host:port, with or without /v1")
    input_len: int = option(512, "Length of the prompts", unit="tokens")
    output_len: int = option(128, "Length of the outputs", unit="tokens")
    concurrency: tuple[int, ...] = option(
        (1, 2, 4, 8, 16), "Requests kept in flight, one level after the other", unit="requests"
    )
    num_requests: int | None = option(
        None,
        "Requests at each level",
        unit="requests",
        automatic="four rounds of the level, at least 8",
    )
    model: str | None = option(
        None, "Model to ask for", automatic="the first that the server lists"
    )
    api_key: str | None = option(None, "Key to send as a bearer token", automatic="none")
    seed: int | None = option(
        None, "Seed of the prompts", automatic="drawn, so that no earlier run has filled the cache"
    )
    shared_prefix_len: int = option(
        0,
        "First tokens that all prompts of a level share; they count towards --input-len",
        unit="tokens",
    )
    endpoint: str = option(
        "completions",
        "`completions` sends token ids where the server takes them, `chat` sends messages",
        choices=("completions", "chat"),
    )
    vocab_size: int | None = option(
        None,
        "Random token ids stay below this",
        unit="tokens",
        automatic="as the server says, else a size that every vocabulary has",
    )
    timeout_s: float = option(600.0, "Longest that one request may take", unit="seconds")
    json: str | None = option(None, "File for all figures as JSON", automatic="none is written")

    def validate(self) -> None:
        """Raise ConfigError naming the first option that is out of range."""
        _check(self.input_len >= 1, "--input-len", "at least 1")
        _check(self.output_len >= 1, "--output-len", "at least 1")
        _check(bool(self.concurrency), "--concurrency", "one number or more, like 1,2,4")
        _check(all(c >= 1 for c in self.concurrency), "--concurrency", "positive numbers")
        most = max(self.concurrency)
        enough = self.num_requests is None or self.num_requests >= most
        _check(enough, "--num-requests", f"at least the highest concurrency ({most})")
        fits = 0 <= self.shared_prefix_len < self.input_len
        _check(fits, "--shared-prefix-len", "0 or more and less than --input-len")
        _check(self.vocab_size is None or self.vocab_size >= 2, "--vocab-size", "at least 2")
        _check(self.timeout_s > 0, "--timeout-s", "positive")
        _check(self.endpoint in ("completions", "chat"), "--endpoint", "completions or chat")

    def requests_at(self, concurrency: int) -> int:
        return self.num_requests or max(8, 4 * concurrency)


def _check(ok: bool, flag: str, rule: str) -> None:
    if not ok:
        raise ConfigError(f"{flag} must be {rule}.")


@dataclass(frozen=True, slots=True)
class Level:
    """What one concurrency gave. Times in seconds; throughputs in tokens/s over `duration_s`."""

    concurrency: int
    requests: int
    completed: int
    errors: dict[str, int]
    """failed requests by cause; they count in no other figure"""
    error_details: dict[str, str]
    """what the server said to the first of each cause"""
    duration_s: float
    """from the first request sent to the last token"""
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    """prompt tokens that the server says it read from its prefix cache"""
    short_outputs: int
    """completed requests with fewer tokens than asked for"""
    ttft_s: Spread
    tpot_s: Spread
    itl_s: Spread
    e2e_s: Spread
    roofline: Roofline | None = None
    """of the server's steps, where it is a Penstock"""

    @property
    def output_tokens_per_s(self) -> float:
        return _rate(self.output_tokens, self.duration_s)

    @property
    def total_tokens_per_s(self) -> float:
        return _rate(self.input_tokens + self.output_tokens, self.duration_s)

    @property
    def requests_per_s(self) -> float:
        return _rate(self.completed, self.duration_s)

    def to_dict(self) -> dict[str, Any]:
        rates = ("requests_per_s", "output_tokens_per_s", "total_tokens_per_s")
        spreads = [f"{metric}_s" for metric in METRICS]
        data = asdict(self) | {name: getattr(self, name) for name in rates}
        if self.roofline is not None:
            data["roofline"]["fraction"] = self.roofline.fraction
        return data | {name: getattr(self, name).to_dict() for name in spreads}


@dataclass(frozen=True, slots=True)
class Report:
    """All levels, and all that is needed to repeat them."""

    options: ServeOptions
    target: Target
    machine: dict[str, Any]
    command: str
    levels: list[Level] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        notes = self.target.form.notes()
        for level in self.levels:
            if level.short_outputs:
                notes.append(
                    f"concurrency {level.concurrency}: {level.short_outputs} of {level.completed} "
                    "outputs ended before --output-len"
                )
        return notes

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, the API key left out."""
        options = asdict(self.options) | {"seed": self.target.prompts.seed}
        options["api_key"] = bool(self.options.api_key)
        return {
            "command": self.command,
            "machine": self.machine,
            "server": {
                "url": self.options.url,
                "model": self.target.model,
                "version": self.target.version,
            },
            "options": options,
            "form": asdict(self.target.form),
            "notes": self.notes,
            "levels": [level.to_dict() for level in self.levels],
        }


def _rate(count: int, duration_s: float) -> float:
    return count / duration_s if duration_s > 0 else 0.0


Progress = Callable[[int, int, int], None]
"""progress(concurrency, finished, wanted): told after every request."""


def run(options: ServeOptions, progress: Progress | None = None) -> Report:
    """Measure every level, one after the other.

    Raises ConfigError, AuthError, ModelNotFoundError, UnavailableError when nothing can be
    measured; requests that fail later are counted by cause.
    """
    return asyncio.run(measure(options, progress or (lambda *_: None)))


async def measure(options: ServeOptions, progress: Progress = lambda *_: None) -> Report:
    """`run`, inside an event loop."""
    options.validate()
    seed = secrets.randbits(32) if options.seed is None else options.seed
    prompts = Prompts(seed, options.input_len, options.shared_prefix_len, options.vocab_size or 0)
    client = HttpClient(options.url, options.api_key, options.timeout_s)
    try:
        target = await find_target(client, options.endpoint, options.model, prompts)
        report = Report(options, target, machine_info(), command_line())
        for group, concurrency in enumerate(options.concurrency):
            before = await read_counters(client)
            seen = await _run_level(client, options, target, group, concurrency, progress)
            level = _level(concurrency, seen, options.output_len)
            found = roofline(before, await read_counters(client))
            report.levels.append(replace(level, roofline=found))
        return report
    finally:
        await client.close()


async def _run_level(
    client: HttpClient,
    options: ServeOptions,
    target: Target,
    group: int,
    concurrency: int,
    progress: Progress,
) -> list[Exchange]:
    """Keep `concurrency` requests in flight until all are done."""
    wanted = options.requests_at(concurrency)
    # Encoded beforehand: work between requests would delay the clock of the streams in flight.
    bodies = [encode(target.body(group, index, options.output_len)) for index in range(wanted)]
    queue = iter(bodies)
    seen: list[Exchange] = []

    async def one_client() -> None:
        for body in queue:
            seen.append(await exchange(client, target.path, body))
            progress(concurrency, len(seen), wanted)

    await client.open(concurrency)
    async with asyncio.TaskGroup() as group_of_clients:
        for _ in range(concurrency):
            group_of_clients.create_task(one_client())
    return seen


def _level(concurrency: int, seen: list[Exchange], output_len: int) -> Level:
    good = [e for e in seen if not e.error]
    start = min((e.sent_s for e in good), default=0.0)
    lives = [e.timeline() for e in good]
    return Level(
        concurrency=concurrency,
        requests=len(seen),
        completed=len(good),
        errors=count_errors(seen),
        error_details={e.error: e.detail for e in reversed(seen) if e.error},
        duration_s=max((e.ended_s for e in good), default=start) - start,
        input_tokens=sum(e.prompt_tokens for e in good),
        output_tokens=sum(e.output_tokens for e in good),
        cached_tokens=sum(e.cached_tokens for e in good),
        short_outputs=sum(e.output_tokens < output_len for e in good),
        ttft_s=_spread(life.ttft_s for life, _ in lives),
        tpot_s=_spread(life.tpot_s for life, _ in lives),
        itl_s=_spread(gap for _, gaps in lives for gap in gaps),
        e2e_s=_spread(life.e2e_s for life, _ in lives),
    )


def _spread(values: Iterable[float | None]) -> Spread:
    return Spread.of([value for value in values if value is not None])
