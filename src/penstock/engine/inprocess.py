"""An engine in a thread of this process: for `LLM`, tests and notebooks."""

from __future__ import annotations

import asyncio
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from penstock.config import Config
from penstock.core.events import Event
from penstock.core.request import FinishReason, Submission
from penstock.engine.client import EngineStats, EventSink, ModelInfo
from penstock.engine.clock import MonotonicClock
from penstock.engine.engine import Engine, Message
from penstock.engine.mailbox import Mailbox, Mailboxes
from penstock.errors import EngineDeadError


class QueueInbox:
    def __init__(self) -> None:
        self.queue: SimpleQueue[Message] = SimpleQueue()

    def get(self, timeout_s: float) -> list[Message]:
        messages: list[Message] = []
        try:
            messages.append(
                self.queue.get(timeout=timeout_s) if timeout_s else self.queue.get_nowait()
            )
            while True:
                messages.append(self.queue.get_nowait())
        except Empty:
            return messages


class InProcessClient:
    """EngineClient over a thread. All methods are called from one event loop."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._inbox = QueueInbox()
        self._boxes = Mailboxes(self.abort)
        self._thread: Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> ModelInfo:
        from penstock.engine.build import build_engine  # torch is imported here, not before

        self._loop = asyncio.get_running_loop()
        engine, info = await asyncio.to_thread(
            build_engine, self._config, MonotonicClock(), self._publish
        )
        self._thread = Thread(target=self._run, args=(engine,), name="penstock-engine", daemon=True)
        self._thread.start()
        return info

    def _run(self, engine: Engine) -> None:
        try:
            engine.run(self._inbox)
        except Exception as error:
            failure = EngineDeadError(f"The engine ended: {type(error).__name__}: {error}")
            self._call(self._boxes.bury, failure)
            raise

    def _publish(self, events: list[Event], stats: EngineStats) -> None:
        self._call(self._boxes.deliver, events, stats)

    def _call(self, function: Any, *args: Any) -> None:
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *args)

    def submit(self, submissions: list[Submission]) -> list[Mailbox]:
        boxes = self._boxes.open(submissions)
        self._inbox.queue.put(submissions)
        return boxes

    def abort(self, ids: list[str], reason: FinishReason = FinishReason.ABORT) -> None:
        self._inbox.queue.put((ids, reason))

    def subscribe(self, sink: EventSink) -> None:
        self._boxes.subscribe(sink)

    def stats(self) -> EngineStats:
        return self._boxes.progress.stats

    def check_health(self, stuck_after_s: float) -> list[str]:
        return self._boxes.check_health(stuck_after_s)

    async def close(self) -> None:
        if self._thread is not None:
            self._inbox.queue.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None
            self._boxes.bury(EngineDeadError("The engine is closed."))
