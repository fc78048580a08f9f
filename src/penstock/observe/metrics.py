"""Events into metrics: the sink that an engine client tells of every step.

All methods are called from the server's event loop. A step's cost is a few hundred nanoseconds a
row: gaps between tokens are grouped first, because rows that run together share them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
from prometheus_client import CollectorRegistry, generate_latest

from penstock.core.events import (
    Blocked,
    Chunk,
    Event,
    Finished,
    Preempted,
    Queued,
    Scheduled,
    TokensOut,
)
from penstock.core.request import FinishReason
from penstock.core.timeline import Progress, Timeline
from penstock.observe import catalog as c
from penstock.observe.instruments import Board

if TYPE_CHECKING:
    from penstock.engine.client import EngineStats, ModelInfo
    from penstock.observe.requestlog import RequestLog


class Metrics:
    """Metrics of a server and its engines, as seen by the process that serves. What is the
    server's own stands under engine 0."""

    def __init__(self, model_name: str, registry: CollectorRegistry | None = None) -> None:
        """registry: an own one unless given. Raises ValueError when it has one of the names."""
        self._registry = registry or CollectorRegistry(auto_describe=False)
        self._model_name = model_name
        self._board = Board(c.CATALOG, {"model_name": model_name, "engine": "0"})
        self._engines = {0: self._board}
        self._engine = self._board
        """the one that tells just now"""
        self._registry.register(self._board)
        self._live: dict[str, Progress] = {}
        self._since: dict[int, float] = {}
        """by engine: when it said something first"""
        self._blocked: dict[int, Blocked] = {}
        """by engine: why its queue stands"""
        self._processes: Callable[[], dict[str, int]] = dict
        self._log: RequestLog | None = None
        self._batch_rows_waiting: Callable[[], int] = int
        _no_endings(self._board)

    @property
    def num_live(self) -> int:
        """Requests that were queued and have not ended."""
        return len(self._live)

    # The engine tells

    def __call__(self, events: list[Event], stats: EngineStats) -> None:
        """A step happened (or a second passed while idle)."""
        self._engine = self._engines.get(stats.engine) or self._new_engine(stats.engine)
        gaps: dict[float, int] = {}
        live, tokens = self._live, 0
        for event in events:
            if isinstance(event, TokensOut):
                tokens += len(event.tokens)
                progress = live.get(event.id)
                gap = progress.tokens(event.at) if progress else None
                if gap is not None:
                    gaps[gap] = gaps.get(gap, 0) + 1
                elif progress:
                    self._add(c.PROMPT_TOKENS, progress.num_prompt)
            elif isinstance(event, Blocked):
                self._stands(event, stats.engine)
            else:
                self._rare(event)
        self._add(c.GENERATION_TOKENS, tokens)
        itl = self._engine.histogram(c.ITL_S)
        for gap, times in gaps.items():
            itl.observe(gap, times)
        self._step(stats)

    def _new_engine(self, index: int) -> Board:
        common = {"model_name": self._model_name, "engine": str(index)}
        board = self._engines[index] = self._board.beside(common)
        _no_endings(board)
        return board

    def _stands(self, event: Blocked, engine: int) -> None:
        """The queue stands for another reason from now on."""
        before = self._blocked.get(engine)
        if before is not None and before.reason is not None:
            lasted = max(0.0, event.at - before.at)
            self._engine.number(c.BLOCKED).add(lasted, before.reason.value)
        self._blocked[engine] = event

    def _rare(self, event: Event) -> None:
        """What happens a few times in a request's life."""
        if isinstance(event, Queued):
            self._live[event.id] = Progress(event)
        elif isinstance(event, Scheduled):
            self._add(c.CACHED_TOKENS, event.cached_tokens)
            if progress := self._live.get(event.id):
                progress.scheduled(event)
        elif isinstance(event, Chunk):
            self._add(c.CHUNKS, 1)
        elif isinstance(event, Preempted):
            self._add(c.LOST_TOKENS, event.lost_tokens)
        elif isinstance(event, Finished):
            self._finished(event)

    def _finished(self, event: Finished) -> None:
        self._engine.number(c.SUCCESS).add(1, event.reason.value)
        if event.reason is FinishReason.ABORT:
            self._add(c.CANCELLED, 1)
        if event.error is not None:
            self._engine.number(c.REQUEST_ERRORS).add(1, str(event.error["code"]))
        progress = self._live.pop(event.id, None)
        if progress is not None:  # a request that was refused at the door has no life
            self._lived(progress.finish(event))

    def _lived(self, timeline: Timeline) -> None:
        for metric, value in (
            (c.TTFT_S, timeline.ttft_s),
            (c.TPOT_S, timeline.tpot_s),
            (c.STALL_S, timeline.longest_stall_s),
            (c.E2E_S, timeline.e2e_s),
            (c.INTAKE_S, timeline.intake_s),
            (c.QUEUE_S, timeline.queue_s),
            (c.PREFILL_S, timeline.prefill_s),
            (c.DECODE_S, timeline.decode_s),
            (c.INFERENCE_S, timeline.inference_s),
            (c.REQUEST_PROMPT, timeline.num_prompt),
            (c.REQUEST_OUTPUT, timeline.num_output),
        ):
            if value is not None:
                self._observe(metric, value)

    def _step(self, stats: EngineStats) -> None:
        since = self._since.setdefault(stats.engine, stats.at)
        self._engine.number(c.UPTIME).set(max(0.0, stats.at - since))
        used = stats.blocks_total - stats.blocks_free - stats.blocks_cached
        for metric, value in (
            (c.RUNNING, stats.running),
            (c.WAITING, stats.waiting + stats.held),
            (c.HELD, stats.held),
            (c.KV_USAGE, used / stats.blocks_total if stats.blocks_total else 0),
            (c.BLOCKS_TOTAL, stats.blocks_total),
            (c.BLOCKS_FREE, stats.blocks_free),
            (c.BLOCKS_CACHED, stats.blocks_cached),
            (c.LEAKED, stats.leaked_blocks),
            (c.PREFIX_QUERIES, stats.prefix_queries),
            (c.PREFIX_HITS, stats.prefix_hits),
            (c.PREEMPTIONS, stats.preemptions),
            (c.RESTARTS, stats.restarts),
        ):
            self._engine.number(metric).set(value)
        computed = stats.prefill_tokens + stats.decode_tokens
        if computed:
            self._add(c.STEPS, 1)
            self._add(c.WORKING, stats.step_s)
            self._add(c.DEVICE_BUSY, stats.device_s)
            self._add(c.PREFILL_TOKENS, stats.prefill_tokens)
            self._add(c.DECODE_TOKENS, stats.decode_tokens)
            self._observe(c.STEP_TOKENS_ALL, computed)
            self._observe(c.STEP_PREFILL, stats.prefill_tokens)
            self._observe(c.STEP_DECODE, stats.decode_tokens)
            self._observe(c.STEP_S, stats.step_s)
            self._observe(c.DEVICE_S, stats.device_s)
            self._observe(c.SCHEDULE_S, stats.schedule_s)
            self._observe(c.PREPARE_S, stats.prepare_s)
            self._observe(c.FORWARD_S, stats.forward_s)
            self._observe(c.SAMPLE_S, stats.sample_s)
            self._observe(c.PUBLISH_S, stats.publish_s)
            if stats.host_share is not None:
                self._observe(c.HOST_SHARE, stats.host_share)
            self._add(c.STEP_BYTES, stats.bytes_moved)
            self._add(c.STEP_OPERATIONS, stats.operations)
            self._add(c.STEP_FLOOR_S, stats.floor_s)
            if stats.bound:
                self._engine.number(c.STEP_BOUND).add(1, stats.bound)

    # The server tells

    def ready(self, info: ModelInfo) -> None:
        """The engine settled its shape."""
        values = (info.block_size, info.num_blocks, info.max_model_len, info.dtype)
        self._board.number(c.CACHE_CONFIG).set(1, *(str(value) for value in values))

    def watch_processes(self, processes: Callable[[], dict[str, int]]) -> None:
        """Report the memory of these as well, by role; `api` is the calling process."""
        self._processes = processes

    def canary(self, passed: bool) -> None:
        """The golden prompts ran."""
        self._board.number(c.CANARY).add(1, "passed" if passed else "failed")

    def watch_log(self, log: RequestLog) -> None:
        """Report how the request log fares."""
        self._log = log

    def requested(self, n: int, max_tokens: int | None) -> None:
        """A request was accepted with these parameters."""
        self._board.histogram(c.REQUEST_N).observe(n)
        if max_tokens is not None:
            self._board.histogram(c.REQUEST_MAX_TOKENS).observe(max_tokens)

    def rejected(self, reason: str) -> None:
        """A request was refused at once; reason: an error's code, as `queue_full`."""
        self._board.number(c.REJECTED).add(1, reason)

    def http_error(self, code: str, status: int) -> None:
        """An error body was sent; code: the error's, as `invalid_field`."""
        self._board.number(c.HTTP_ERRORS).add(1, code, str(status))

    def key_used(self, key: str, prompt: int, output: int) -> None:
        """A request of the key with this name ended."""
        self._board.number(c.KEY_REQUESTS).add(1, key)
        tokens = self._board.number(c.KEY_TOKENS)
        tokens.add(prompt, key, "prompt")
        tokens.add(output, key, "output")

    def batch_rows(self, endpoint: str, done: int, failed: int) -> None:
        """Rows of batches have their results."""
        rows = self._board.number(c.BATCH_ROWS)
        rows.add(done, endpoint, "done")
        rows.add(failed, endpoint, "failed")

    def watch_batches(self, waiting: Callable[[], int]) -> None:
        """Report how many rows of batches have no result yet."""
        self._batch_rows_waiting = waiting

    def tokenized(self, seconds: float) -> None:
        self._board.histogram(c.TOKENIZE_S).observe(seconds)

    def detokenized(self, seconds: float) -> None:
        self._board.histogram(c.DETOKENIZE_S).observe(seconds)

    # The scraper asks

    def render(self) -> bytes:
        """Prometheus' text format, UTF-8; content type `CONTENT_TYPE_LATEST` of the client."""
        self._board.number(c.BATCH_ROWS_WAITING).set(self._batch_rows_waiting())
        self._read_log()
        memory = self._board.number(c.RSS)
        memory.values.clear()
        for role, size in self.memory().items():
            memory.set(size, role)
        return generate_latest(self._registry)

    def memory(self) -> dict[str, int]:
        """Resident bytes of each process, by role; of those that are alive."""
        found = {}
        for role, pid in {"api": os.getpid(), **self._processes()}.items():
            with suppress(psutil.NoSuchProcess):
                found[role] = psutil.Process(pid).memory_info().rss
        return found

    def _read_log(self) -> None:
        log = self._log
        if log is not None:
            for metric, value in (
                (c.LOG_DROPPED, log.dropped),
                (c.LOG_LOST, log.lost_lines),
                (c.LOG_BYTES, log.written_bytes),
                (c.LOG_FAILED, log.failed is not None),
                (c.LOG_DEPTH, log.depth),
                (c.LOG_CPU, log.cpu_s),
            ):
                self._board.number(metric).set(value)

    def _add(self, metric: c.Metric, amount: float) -> None:
        self._engine.number(metric).add(amount)

    def _observe(self, metric: c.Metric, value: float) -> None:
        self._engine.histogram(metric).observe(value)


def _no_endings(board: Board) -> None:
    """Every reason is there from the start, at zero."""
    ended = board.number(c.SUCCESS)
    for reason in FinishReason:
        ended.set(0, reason.value)
