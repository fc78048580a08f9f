"""One engine process or several behind one client, and what becomes of their requests.

    submit -> placing (router) -> engine process 0 .. N-1, each with its scheduler and cache

A process that ends, goes silent or hangs in a step is replaced. Its requests move to other engines
at once, or wait for the next one that is ready: as they were when nothing was streamed yet, else
as continuations of prompt and output so far. A draw depends on (seed, choice, output position)
alone, so the tokens are those that the lost engine would have written, and a reader sees one
stream. Mailboxes are the group's, not an engine's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import psutil
import zmq

from penstock.config import Config
from penstock.core.events import CacheChanged, Event, Finished, Queued, Scheduled, TokensOut
from penstock.core.request import FinishReason, Submission
from penstock.engine import wire
from penstock.engine.child import PROGRAM, Child
from penstock.engine.client import EngineStats, EventSink, ModelInfo
from penstock.engine.mailbox import Mailbox, Mailboxes, Progress
from penstock.engine.placing import Open, Placing
from penstock.errors import EngineDeadError, EngineStuckError, PenstockError, from_dict

log = logging.getLogger(__name__)

PATIENCE_S = 120.0
"""Least time that requests wait for an engine; more where a start takes long."""


@dataclass(frozen=True, slots=True)
class Restarts:
    """How often an engine is replaced: at once, then after backoff_s, twice that … longest_s."""

    most: int = 5
    """in a row; then the engine is given up"""
    backoff_s: float = 0.5
    longest_s: float = 30.0
    calm_s: float = 60.0
    """after serving this long the row begins anew"""
    crashes: int = 3
    """that a request survives without a token between; then it is taken for their cause"""

    def delay_s(self, failures: int) -> float:
        if failures <= 1:
            return 0.0
        return min(self.longest_s, self.backoff_s * 2.0 ** min(failures - 2, 16))


class Engine:
    """A place for engine processes, one after the other."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.child: Child | None = None
        self.serving = False
        self.since = time.monotonic()
        """start of the process, or of serving"""
        self.failures = 0
        self.restarts = 0
        self.said = ""
        """its process, before it ended"""
        self.last_words = ""
        """how its last process ended"""
        self.given_up = False
        self.progress = Progress()
        self.open: dict[str, Open] = {}
        self.tokens_ahead = 0
        """prompt tokens that its requests still have to compute, as placed"""

    def describe(self) -> str:
        if self.given_up:
            return f"Engine {self.index} is given up: it {self.last_words}."
        phase = self.child.beat.phase if self.child else "waiting for its turn"
        doing = "serving" if self.serving else "starting"
        if self.restarts and not self.serving:
            doing = "restarting"
        age = time.monotonic() - self.since
        return f"Engine {self.index} is {doing} for {age:.1f} s ({phase}){self._before()}."

    def _before(self) -> str:
        return f"; before, it {self.last_words}" if self.last_words else ""


class EngineGroup:
    """EngineClient over --data-parallel-size processes. All methods are called from one loop."""

    def __init__(
        self,
        config: Config,
        program: Sequence[str] = PROGRAM,
        restarts: Restarts | None = None,
    ) -> None:
        self._config = _share(config)
        self._program = program
        self._restarts = restarts or Restarts()
        self._engines = [Engine(i) for i in range(config.engine.data_parallel_size)]
        self._boxes = Mailboxes(self.abort)
        self._open: dict[str, Open] = {}
        self._parked: dict[str, Open] = {}
        self._infos: dict[int, ModelInfo] = {}
        self._placing: Placing | None = None
        """None until all engines served once"""
        self._ready: asyncio.Future[ModelInfo] | None = None
        self._patience_s = PATIENCE_S
        self._closed = False

    def processes(self) -> dict[str, int]:
        """Ids of the engine processes that run now, by name."""
        found = {}
        for engine in self._engines:
            if engine.child is not None and (pid := engine.child.pid) is not None:
                found["engine" if len(self._engines) == 1 else f"engine {engine.index}"] = pid
        return found

    # Start and end

    async def start(self) -> ModelInfo:
        self._loop = asyncio.get_running_loop()
        self._ready = self._loop.create_future()
        self._context = zmq.Context()
        for engine in self._engines:
            self._spawn(engine)
        return await self._ready

    async def close(self) -> None:
        """End the engine processes and give back sockets and files. May be called twice."""
        if self._closed or self._ready is None:
            return
        self._closed = True
        children = [engine.child for engine in self._engines if engine.child]
        await asyncio.gather(*(child.close() for child in children))
        for waiting in self._open.values():
            waiting.stop_timer()
        self._boxes.bury(EngineDeadError("The engine is closed."))
        self._context.term()

    def _spawn(self, engine: Engine) -> None:
        if self._closed:
            return
        engine.since, engine.said = time.monotonic(), ""
        config = self._config
        if engine.index in self._infos:  # a replacement must be the engine that it replaces
            size = self._infos[engine.index].kv_cache_bytes or None
            config = replace(config, engine=replace(config.engine, kv_cache_memory_bytes=size))
        hear, ended = partial(self._hear, engine), partial(self._ended, engine)
        engine.child = Child(config, engine.index, self._context, hear, ended, self._program)

    # What engines say

    def _hear(self, engine: Engine, child: Child, message: wire.Upward) -> None:
        if isinstance(message, tuple):
            self._stepped(engine, *message)
        elif isinstance(message, ModelInfo):
            self._serves(engine, message)
        elif isinstance(message, dict):
            engine.said = f": {message['message']}"
            self._fail_start(from_dict(message))

    def _serves(self, engine: Engine, info: ModelInfo) -> None:
        assert self._ready is not None
        start_s = time.monotonic() - engine.since
        self._patience_s = max(self._patience_s, 3 * start_s)
        engine.serving, engine.since = True, time.monotonic()
        self._infos[engine.index] = info
        if self._placing is not None:
            log.info("%s", engine.describe())
            self._place(list(self._parked.values()))
        elif len(self._infos) == len(self._engines) and not self._ready.done():
            whole = _merge([self._infos[each.index] for each in self._engines])
            self._placing = Placing(whole, self._config.engine.enable_prefix_caching)
            self._ready.set_result(whole)

    def _fail_start(self, error: PenstockError) -> None:
        """The first start of all engines is one: if one cannot, none is of use."""
        assert self._ready is not None
        if not self._ready.done():
            self._ready.set_exception(error)

    def _stepped(self, engine: Engine, events: list[Event], stats: EngineStats) -> None:
        """An engine finished a step, or rests."""
        stats.engine, stats.restarts = engine.index, engine.restarts
        engine.progress.note(stats)
        again = False
        for event in events:
            if isinstance(event, CacheChanged):
                self._places().cache_changed(engine.index, event)
                continue
            request = self._open.get(event.id)
            if request is None:
                continue
            if isinstance(event, TokensOut):
                self._computed(engine, request)
                request.output += event.tokens
                request.crashes = 0
            elif isinstance(event, Finished):
                self._computed(engine, request)
                self._forget(request)
            elif isinstance(event, Queued):
                again = again or request.moved
            elif isinstance(event, Scheduled):
                event.route = request.route
        if again:  # the world above heard of these before
            events = [e for e in events if not (isinstance(e, Queued) and self._was_moved(e.id))]
        self._boxes.deliver(events, stats)

    def _was_moved(self, request_id: str) -> bool:
        request = self._open.get(request_id)
        return request is not None and request.moved

    def _computed(self, engine: Engine, request: Open) -> None:
        """Its prompt is done with: the engine has told what it stored."""
        if request.ahead:
            engine.tokens_ahead -= request.ahead
            request.ahead = 0
            self._places().settled(engine.index, request)

    def _places(self) -> Placing:
        assert self._placing is not None
        return self._placing

    # Requests

    def submit(self, submissions: list[Submission]) -> list[Mailbox]:
        boxes = self._boxes.open(submissions)
        requests = [Open(submission) for submission in submissions]
        self._open.update((request.id, request) for request in requests)
        self._place(requests)
        return boxes

    def _place(self, requests: list[Open]) -> None:
        """Give requests to engines, siblings (of one group) to the same one."""
        families: dict[str, list[Open]] = {}
        for request in requests:
            families.setdefault(request.submission.group or request.id, []).append(request)
        for family in families.values():
            place = self._places().choose(family[0], self._engines)
            if place is None:
                for request in family:
                    self._park(request)
                continue
            engine = self._engines[place]
            for request in family:
                self._parked.pop(request.id, None)
                request.stop_timer()
                self._give(engine, request)
            assert engine.child is not None
            engine.child.send([request.continued() for request in family])

    def _give(self, engine: Engine, request: Open) -> None:
        if not engine.open:
            engine.progress.restart()
        request.engine = engine.index
        engine.open[request.id] = request
        engine.tokens_ahead += request.ahead

    def _park(self, request: Open) -> None:
        """Nobody serves: wait for the next engine, but not for ever."""
        if request.id in self._parked:
            return
        request.engine = None
        self._parked[request.id] = request
        deadline = request.submission.deadline_s
        left = self._patience_s if deadline is None else deadline - time.monotonic()
        in_time = left < self._patience_s
        ending = FinishReason.TIMEOUT if in_time else FinishReason.ERROR
        wait_s = max(0.0, min(left, self._patience_s))
        request.timer = self._loop.call_later(wait_s, self._waited, request, ending)

    def _waited(self, request: Open, reason: FinishReason) -> None:
        error = None
        if reason is FinishReason.ERROR:
            error = EngineDeadError(
                f"No engine came back within {self._patience_s:.0f} s. {self._state()}",
                cure="Try again later; see the server's log.",
                retry_after_s=10,
            )
        self._end(request, reason, error)

    def abort(self, ids: list[str], reason: FinishReason = FinishReason.ABORT) -> None:
        by_engine: dict[int, list[str]] = {}
        for request_id in ids:
            request = self._open.get(request_id)
            if request is None:
                continue
            if request.engine is None:
                self._end(request, reason)
            else:
                request.aborted = reason
                by_engine.setdefault(request.engine, []).append(request_id)
        for index, asked in by_engine.items():
            child = self._engines[index].child
            if child is not None:
                child.send((asked, reason))

    def _forget(self, request: Open) -> None:
        self._open.pop(request.id, None)
        self._parked.pop(request.id, None)
        request.stop_timer()
        if request.engine is not None:
            self._engines[request.engine].open.pop(request.id, None)

    def _end(self, request: Open, reason: FinishReason, error: PenstockError | None = None) -> None:
        """End a request that no engine has."""
        self._forget(request)
        ending = Finished(
            request.id,
            time.monotonic(),
            reason,
            num_prompt=len(request.submission.prompt),
            num_output=len(request.output),
            cached_tokens=0,
            preemptions=0,
            error=error.to_dict() if error else None,
        )
        stats = self._engines[request.engine or 0].progress.stats
        self._boxes.deliver([ending], replace(stats, prefill_tokens=0, decode_tokens=0))

    # What becomes of them when an engine ends

    def _ended(self, engine: Engine, child: Child, why: str) -> None:
        """Its process is gone, and everything that it said has been heard."""
        was_serving, engine.serving, engine.child = engine.serving, False, None
        if self._closed:
            return
        error = EngineDeadError(
            f"Engine {engine.index} {why}{engine.said}.",
            cure="Try again; if it goes on, look at the server's log.",
            retry_after_s=10,
        )
        if self._placing is None:
            self._fail_start(error)
            return
        if was_serving and time.monotonic() - engine.since > self._restarts.calm_s:
            engine.failures = 0
        engine.failures += 1
        engine.last_words = why + engine.said
        self._restart(engine)
        self._places().forget(engine.index)
        stranded = list(engine.open.values())
        engine.open.clear()
        engine.tokens_ahead = 0
        self._move(stranded, error)
        if all(each.given_up for each in self._engines):
            self._open.clear()
            self._parked.clear()
            self._boxes.bury(error)

    def _restart(self, engine: Engine) -> None:
        num_open = len(engine.open)
        if engine.failures > self._restarts.most:
            engine.given_up = True
            log.error("%s %d requests were open", engine.describe(), num_open)
            return
        delay_s = self._restarts.delay_s(engine.failures)
        engine.restarts += 1
        engine.since = time.monotonic()
        gone = EngineStats(at=engine.since, engine=engine.index, restarts=engine.restarts)
        engine.progress.note(gone)
        self._boxes.deliver([], gone)
        log.warning(
            "engine %d %s; it is restarted in %.1f s, %d requests were open",
            engine.index,
            engine.last_words,
            delay_s,
            num_open,
        )
        self._loop.call_later(delay_s, self._spawn, engine)

    def _move(self, stranded: Iterable[Open], error: PenstockError) -> None:
        homeless = []
        for request in stranded:
            request.engine = None
            request.ahead = 0
            request.moved = True
            request.crashes += 1
            if request.aborted is not None:
                self._end(request, request.aborted)
            elif request.crashes > self._restarts.crashes:
                self._end(request, FinishReason.ERROR, error)
            else:
                homeless.append(request)
        self._place(homeless)

    # Questions

    def subscribe(self, sink: EventSink) -> None:
        self._boxes.subscribe(sink)

    def stats(self) -> EngineStats:
        """Of all engines together; `step` and times are those of the last one heard."""
        if len(self._engines) == 1:
            return self._engines[0].progress.stats
        parts = [engine.progress.stats for engine in self._engines]
        latest = max(parts, key=lambda stats: stats.at)
        sums = {name: sum(getattr(part, name) for part in parts) for name in _SUMMED}
        return replace(latest, **sums)

    def check_health(self, stuck_after_s: float) -> list[str]:
        if self._boxes.dead is not None:
            raise from_dict(self._boxes.dead)
        if not any(engine.serving for engine in self._engines):
            raise EngineStuckError(self._state(), cure="Wait; the engine is being restarted.")
        for engine in self._engines:
            if engine.serving:
                name = f"Engine {engine.index}"
                engine.progress.check(name, len(engine.open), stuck_after_s)
        return [engine.describe() for engine in self._engines if not engine.serving]

    def _state(self) -> str:
        return " ".join(engine.describe() for engine in self._engines)


_SUMMED = (
    *("running", "waiting", "held", "blocks_total", "blocks_free", "blocks_cached", "restarts"),
    *("prefix_queries", "prefix_hits", "preemptions", "leaked_blocks"),
)


def _share(config: Config) -> Config:
    """Each engine's part of the cores."""
    engine = config.engine
    if engine.data_parallel_size == 1 or engine.num_threads is not None:
        return config
    cores = psutil.cpu_count(logical=False) or 1
    if hasattr(os, "sched_getaffinity"):
        cores = min(cores, len(os.sched_getaffinity(0)))
    threads = max(1, cores // (engine.data_parallel_size * engine.processes))
    return replace(config, engine=replace(engine, num_threads=threads))


def _merge(infos: list[ModelInfo]) -> ModelInfo:
    """What holds for all engines together."""
    first = infos[0]
    if len(infos) == 1:
        return first
    note = f"{len(infos)} engines, each with {first.max_num_seqs} requests at once"
    return replace(
        first,
        max_model_len=min(info.max_model_len for info in infos),
        num_blocks=sum(info.num_blocks for info in infos),
        max_num_seqs=sum(info.max_num_seqs for info in infos),
        notes=[*first.notes, note],
    )
