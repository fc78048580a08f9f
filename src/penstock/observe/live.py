"""The last minutes, for the dashboard: a sink of an engine client's events beside the metrics.

Kept are sums of each second and the trails of the latest requests, both bounded. Latencies are
counted in buckets that grow by 5 %, so that any stretch of seconds can be merged and asked for
a percentile within 2.5 %.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from penstock.core.events import (
    Event,
    Finished,
    Held,
    Preempted,
    Queued,
    Scheduled,
    TokensOut,
)

if TYPE_CHECKING:
    from penstock.engine.client import EngineStats

SECONDS = 900
"""kept: a quarter of an hour"""
REQUESTS = 1000
"""finished requests kept"""
MARKS = 1024
"""instants kept of one request; of a longer one the first and the last half of them"""
GROWTH = 1.05
FIRST_S = 0.00025
"""the first bucket holds what is at most this"""

Buckets = dict[int, int]


def bucket(seconds: float) -> int:
    """Index of the bucket that a duration falls into: above FIRST_S * GROWTH ** (index - 1)."""
    return max(0, math.ceil(math.log(max(seconds, 1e-9) / FIRST_S) / math.log(GROWTH)))


@dataclass(slots=True)
class Second:
    """What happened in one second; `at` is its beginning on the scheduler's clock."""

    at: int
    queued: int = 0
    finished: int = 0
    failed: int = 0
    """ended by an error or a deadline"""
    prefill_tokens: int = 0
    cached_tokens: int = 0
    decode_tokens: int = 0
    output_tokens: int = 0
    steps: int = 0
    step_s: float = 0.0
    device_s: float = 0.0
    preemptions: int = 0
    running: int = 0
    """at the end of the second, as all that follows; over all engines"""
    waiting: int = 0
    blocks_total: int = 0
    blocks_used: int = 0
    blocks_cached: int = 0
    ttft: Buckets = field(default_factory=dict)
    itl: Buckets = field(default_factory=dict)
    e2e: Buckets = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


class Trail:
    """The instants of one request's life, in order."""

    __slots__ = ("arrived", "begin", "end", "ended", "first", "last", "num_output", "queued")

    def __init__(self, queued: Queued) -> None:
        self.queued = queued
        self.arrived = queued.at if queued.arrived is None else queued.arrived
        self.begin: list[tuple[float, str, object]] = [(queued.at, "queued", queued.num_prompt)]
        self.end: deque[tuple[float, str, object]] = deque(maxlen=MARKS // 2)
        self.first: float | None = None
        self.last: float | None = None
        self.num_output = 0
        self.ended: Finished | None = None

    def mark(self, at: float, kind: str, what: object) -> None:
        (self.begin if len(self.begin) < MARKS // 2 else self.end).append((at, kind, what))

    def row(self) -> dict[str, Any]:
        """A line of the table. Durations in seconds; None: not reached."""
        ended = self.ended
        reached = self.last if ended is None else ended.at
        return {
            "id": self.queued.id,
            "arrived": self.arrived,
            "num_prompt": self.queued.num_prompt,
            "num_output": self.num_output,
            "cached_tokens": ended.cached_tokens if ended else None,
            "preemptions": ended.preemptions if ended else None,
            "ttft_s": None if self.first is None else self.first - self.arrived,
            "e2e_s": None if reached is None else reached - self.arrived,
            "reason": ended.reason.value if ended else None,
        }

    def story(self) -> dict[str, Any]:
        """The row and every instant kept, as seconds after the arrival."""
        marks = [*self.begin, *self.end]
        return self.row() | {
            "marks": [[at - self.arrived, kind, what] for at, kind, what in marks],
        }


class Live:
    """Tell it of every step as a sink; ask it for what is new since a moment."""

    def __init__(self) -> None:
        self._seconds: deque[Second] = deque(maxlen=SECONDS)
        self._trails: dict[str, Trail] = {}
        self._done: deque[tuple[int, Trail]] = deque(maxlen=REQUESTS)
        self._serial = 0
        self._engines: dict[int, EngineStats] = {}

    def __call__(self, events: list[Event], stats: EngineStats) -> None:
        """A step happened (or a second passed while idle)."""
        before = self._engines.get(stats.engine)
        self._engines[stats.engine] = stats
        now = self._second(stats.at)
        for event in events:
            if isinstance(event, TokensOut):
                self._tokens(event, now)
            else:
                self._rare(event, now)
        if before is None or stats.step != before.step:
            now.steps += 1
            now.step_s += stats.step_s
            now.device_s += stats.device_s
            now.prefill_tokens += stats.prefill_tokens
            now.decode_tokens += stats.decode_tokens
        engines = self._engines.values()
        now.running = sum(each.running for each in engines)
        now.waiting = sum(each.waiting + each.held for each in engines)
        now.blocks_total = sum(each.blocks_total for each in engines)
        now.blocks_cached = sum(each.blocks_cached for each in engines)
        now.blocks_used = now.blocks_total - now.blocks_cached
        now.blocks_used -= sum(each.blocks_free for each in engines)

    def _second(self, at: float) -> Second:
        """Engines' clocks are one, but their news may cross: the latest second takes them all."""
        if not self._seconds or self._seconds[-1].at < int(at):
            self._seconds.append(Second(int(at)))
        return self._seconds[-1]

    def _tokens(self, event: TokensOut, now: Second) -> None:
        now.output_tokens += len(event.tokens)
        trail = self._trails.get(event.id)
        if trail is None:
            return
        if trail.last is None:
            trail.first = event.at
            _count(now.ttft, event.at - trail.arrived)
        else:
            _count(now.itl, event.at - trail.last)
        trail.last = event.at
        trail.num_output += len(event.tokens)
        trail.mark(event.at, "tokens", len(event.tokens))

    def _rare(self, event: Event, now: Second) -> None:
        if isinstance(event, Queued):
            now.queued += 1
            self._trails[event.id] = Trail(event)
            return
        trail = self._trails.get(event.id)
        if isinstance(event, Scheduled):
            now.cached_tokens += event.cached_tokens
            if trail:
                kind = "resumed" if event.resumed else "scheduled"
                trail.mark(event.at, kind, event.cached_tokens)
        elif isinstance(event, Preempted):
            now.preemptions += 1
            if trail:
                trail.mark(event.at, "preempted", event.by)
        elif isinstance(event, Held) and trail:
            trail.mark(event.at, "held", event.behind)
        elif isinstance(event, Finished):
            now.finished += 1
            now.failed += event.reason.value in ("error", "timeout")
            if trail:
                self._finish(self._trails.pop(event.id), event, now)

    def _finish(self, trail: Trail, event: Finished, now: Second) -> None:
        trail.ended = event
        trail.mark(event.at, "finished", event.reason.value)
        _count(now.e2e, event.at - trail.arrived)
        self._serial += 1
        self._done.append((self._serial, trail))

    # The page asks

    def since(self, second: int, serial: int) -> dict[str, Any]:
        """Whole seconds after `second`, finished requests after `serial`, and what runs now."""
        seconds = [each.to_dict() for each in list(self._seconds)[:-1] if each.at > second]
        done = [trail.row() | {"serial": number} for number, trail in self._done if number > serial]
        return {
            "seconds": seconds,
            "finished": done,
            "running": [trail.row() for trail in list(self._trails.values())[:200]],
            "num_live": len(self._trails),
            "engines": [
                {
                    "engine": index,
                    "running": each.running,
                    "waiting": each.waiting,
                    "held": each.held,
                    "blocks_total": each.blocks_total,
                    "blocks_free": each.blocks_free,
                    "blocks_cached": each.blocks_cached,
                    "prefix_queries": each.prefix_queries,
                    "prefix_hits": each.prefix_hits,
                    "preemptions": each.preemptions,
                    "restarts": each.restarts,
                }
                for index, each in sorted(self._engines.items())
            ],
            "serial": self._serial,
        }

    def story(self, request_id: str) -> dict[str, Any] | None:
        """One request in full; None: unknown, or too long ago."""
        trail = self._trails.get(request_id)
        if trail is None:
            found = (t for _, t in reversed(self._done) if t.queued.id == request_id)
            trail = next(found, None)
        return None if trail is None else trail.story()


def _count(buckets: Buckets, seconds: float) -> None:
    index = bucket(seconds)
    buckets[index] = buckets.get(index, 0) + 1
