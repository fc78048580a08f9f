"""One request under way: the engine's deltas of its n choices, merged and turned into text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from types import TracebackType
from typing import Any, Protocol, TypeVar

from penstock.core.clock import Clock
from penstock.core.records import Origin
from penstock.core.request import Adapter, FinishReason, Sampling, Submission
from penstock.engine.client import Delta, EngineClient
from penstock.errors import EngineError, PenstockError, from_dict
from penstock.observe.assemble import Answer, Closed, Opened
from penstock.observe.identity import of_data
from penstock.text.outputs import (
    Choice,
    PositionLogprobs,
    RequestMetrics,
    RequestOutput,
    TextDelta,
    Usage,
    position_logprobs,
)
from penstock.text.params import SamplingParams
from penstock.text.tokenizer import Tokenizer

T = TypeVar("T")


class TextTimes(Protocol):
    """Told how long work on text took, in seconds: `observe.metrics.Metrics` is one."""

    def tokenized(self, seconds: float) -> None: ...

    def detokenized(self, seconds: float) -> None: ...


@dataclass(slots=True)
class Stamps:
    """What was done to a request before it is submitted; absolute times on the client's clock."""

    admitted_s: float
    tokenizing_s: float | None = None
    """a tokenizer thread began with it"""
    tokenized_s: float | None = None
    tokenize_s: float = 0.0
    """in that thread"""


class Log(Protocol):
    """Told of every request: `observe.requestlog.RequestLog` is one."""

    def opened(self, request: Opened) -> None: ...

    def closed(self, request: Closed) -> None: ...


_TEXT_PARAMS = (
    *("stop", "include_stop_str_in_output", "ignore_eos", "skip_special_tokens", "max_tokens"),
    *("stop_token_ids", "bad_words"),
)
"""Parameters that `Sampling` does not hold, or not as they were asked for."""


class Generation:
    """An async iterator of `TextDelta`s; `result` instead waits for the whole.

    Leaving early, by `aclose`, by `async with` or by cancelling the task that waits here, aborts
    the request in the engine. Errors of the engine are raised as typed errors, after which the
    other choices are aborted too.
    """

    def __init__(
        self,
        client: EngineClient,
        clock: Clock,
        tokenizer: Tokenizer,
        *,
        request_id: str,
        prompt: str | None,
        prompt_token_ids: list[int],
        params: SamplingParams,
        samplings: Sequence[Sampling],
        arrival_s: float = 0.0,
        adapter: Adapter | None = None,
        times: TextTimes | None = None,
        log: Log | None = None,
        origin: Origin | None = None,
        stamps: Stamps | None = None,
        **submission: Any,
    ) -> None:
        """submission: further fields of every choice's Submission. Submits."""
        self.request_id = request_id
        self.prompt = prompt
        self.prompt_token_ids = prompt_token_ids
        self.params = params
        self.adapter = adapter
        self.seed = samplings[0].seed
        """the request's, or the one that it was given"""
        self.prompt_logprobs: list[PositionLogprobs | None] | None = (
            [None] if params.prompt_logprobs is not None and len(prompt_token_ids) == 1 else None
        )
        """one entry a prompt token, once the first token is there; the first is None"""
        self.embedding: list[float] | None = None
        """the pooled prompt, when asked for, once the first token is there"""
        self.metrics = RequestMetrics(arrival_s=arrival_s, submitted_s=clock.now())
        self._client = client
        self._clock = clock
        self._tokenizer = tokenizer
        self._times = times
        self._choices = [Choice(tokenizer, params, sampling) for sampling in samplings]
        self._ids = _choice_ids(request_id, len(samplings))
        self._cached_tokens = 0
        self._log, self._detokenize_s = log, 0.0
        self._delivered: dict[int, float] = {}  # when the last text of a choice was there
        whole = Submission(
            id=request_id,
            prompt=prompt_token_ids,
            sampling=samplings[0],
            group=request_id if len(samplings) > 1 else "",
            arrival_s=arrival_s,
            adapter=adapter,
            **submission,
        )
        if log is not None:
            log.opened(self._opened(whole, origin, stamps))
        self._submit(whole, samplings)

    def _submit(self, whole: Submission, samplings: Sequence[Sampling]) -> None:
        pairs = zip(self._ids, samplings, strict=True)
        choices = [replace(whole, id=name, sampling=sampling) for name, sampling in pairs]
        try:
            self._deltas = merge(self._client.submit(choices))
        except PenstockError as error:
            self._tell_end(error)
            raise

    @property
    def usage(self) -> Usage:
        """Counts so far."""
        written = sum(len(choice.token_ids) for choice in self._choices)
        return Usage(len(self.prompt_token_ids), written, self._cached_tokens)

    @property
    def finished(self) -> bool:
        return all(choice.finish_reason is not None for choice in self._choices)

    def output(self) -> RequestOutput:
        """All that has come so far, put together."""
        return RequestOutput(
            request_id=self.request_id,
            prompt=self.prompt,
            prompt_token_ids=self.prompt_token_ids,
            prompt_logprobs=self.prompt_logprobs,
            outputs=[choice.output() for choice in self._choices],
            seed=self.seed,
            num_cached_tokens=self._cached_tokens,
            metrics=self.metrics,
            finished=self.finished,
        )

    async def result(self) -> RequestOutput:
        """Wait for the end."""
        async for _ in self:
            pass
        return self.output()

    def __aiter__(self) -> AsyncIterator[TextDelta]:
        return self

    async def __anext__(self) -> TextDelta:
        if self.finished:
            await self._deltas.aclose()
            raise StopAsyncIteration
        try:
            async for index, delta in self._deltas:
                text = self._take(index, delta)
                if text is not None:
                    return text
            raise EngineError(f"The engine left request {self.request_id} without an end.")
        except BaseException as error:
            await self.aclose(error)
            raise

    async def aclose(self, error: BaseException | None = None) -> None:
        """Abort what is not finished. error: why."""
        unfinished = [
            choice_id
            for choice_id, choice in zip(self._ids, self._choices, strict=True)
            if choice.finish_reason is None
        ]
        for choice in self._choices:
            choice.finish_reason = choice.finish_reason or FinishReason.ABORT.value
        if unfinished:
            self._client.abort(unfinished)
        self._tell_end(error)
        await self._deltas.aclose()

    async def __aenter__(self) -> Generation:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _take(self, index: int, delta: Delta) -> TextDelta | None:
        choice = self._choices[index]
        if choice.finish_reason is not None:
            return None
        if delta.finish is FinishReason.ERROR:
            raise from_dict(delta.error) if delta.error else EngineError("The request failed.")
        if delta.embedding is not None:
            self.embedding = delta.embedding
        if index == 0:
            self._cached_tokens = max(self._cached_tokens, delta.cached_tokens)
            self.metrics.predicted_ttft_s = delta.predicted_ttft_s
            self._take_prompt(delta)
        began = self._clock.now()
        text = choice.push(delta.tokens, delta.logprobs, delta.finish, delta.stop_id)
        if text.finish_reason is not None:
            self._delivered[index] = self._clock.now()
        self._take_time(began, bool(text.token_ids))
        if text.finish_reason is not None and delta.finish is None:
            # a stop string: the engine does not know yet
            self._client.abort([self._ids[index]], FinishReason.STOP)
        return text if text.token_ids or text.text or text.finish_reason else None

    def _take_prompt(self, delta: Delta) -> None:
        if delta.prompt_logprobs is not None:
            rest = [position_logprobs(entry, self._tokenizer) for entry in delta.prompt_logprobs]
            self.prompt_logprobs = [None, *rest]

    def _take_time(self, began: float, has_tokens: bool) -> None:
        now = self._clock.now()
        self._detokenize_s += now - began
        if self._times is not None:
            self._times.detokenized(now - began)
        if has_tokens:
            self.metrics.first_token_s = self.metrics.first_token_s or now
            self.metrics.last_token_s = now
        if self.finished:
            self.metrics.finished_s = now
            self._tell_end(None)

    # The log

    def _opened(self, first: Submission, origin: Origin | None, stamps: Stamps | None) -> Opened:
        submitted_s = self.metrics.submitted_s or 0.0
        stamps = stamps or Stamps(submitted_s)
        defaults = {f.name: f.default for f in fields(SamplingParams) if f.default is not MISSING}
        params: dict[str, Any] = {name: getattr(self.params, name) for name in _TEXT_PARAMS}
        return Opened(
            id=self.request_id,
            choice_ids=self._ids,
            origin=origin or Origin(),
            prompt=self.prompt,
            prompt_ids=self.prompt_token_ids,
            sampling=first.sampling,
            given_seed=self.params.seed is not None,
            params={name: value for name, value in params.items() if value != defaults[name]},
            priority=first.priority,
            session=first.session,
            salt=of_data(first.cache_keys)[:8] if any(first.cache_keys) else "",
            adapter=None if first.adapter is None else asdict(first.adapter),
            arrival_s=first.arrival_s,
            deadline_s=first.deadline_s,
            admitted_s=stamps.admitted_s,
            submitted_s=submitted_s,
            tokenizing_s=stamps.tokenizing_s,
            tokenized_s=stamps.tokenized_s,
            tokenize_s=stamps.tokenize_s,
        )

    def _tell_end(self, error: BaseException | None) -> None:
        """Once: what the reader got."""
        log, self._log = self._log, None
        if log is None:
            return
        answers = [
            Answer(
                ids=choice.token_ids,
                text="".join(choice.texts),
                finish=choice.finish_reason,
                stop_reason=choice.stop_reason,
                delivered_s=self._delivered.get(index),
                logprobs=_chosen(choice, "logprob"),
                ranks=_chosen(choice, "rank"),
            )
            for index, choice in enumerate(self._choices)
        ]
        typed = error.to_dict() if isinstance(error, PenstockError) else None
        skip, spent = self.params.skip_special_tokens, self._detokenize_s
        log.closed(Closed(self.request_id, self._clock.now(), answers, skip, spent, typed))


def _chosen(choice: Choice, name: str) -> list[Any] | None:
    """logprob or rank of each token, where there are logprobs: the chosen one stands first."""
    if choice.logprobs is None:
        return None
    return [getattr(next(iter(position.values())), name) for position in choice.logprobs]


def _choice_ids(request_id: str, n: int) -> list[str]:
    return [request_id] if n == 1 else [f"{request_id}-{i}" for i in range(n)]


async def merge(streams: Sequence[AsyncIterator[T]]) -> AsyncGenerator[tuple[int, T], None]:
    """(index of its stream, item), in the order in which the items come."""
    if len(streams) == 1:  # no task per item
        async for item in streams[0]:
            yield 0, item
        return
    waiting = {asyncio.ensure_future(anext(stream)): i for i, stream in enumerate(streams)}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=waiting.__getitem__):
                index = waiting.pop(task)
                try:
                    item = task.result()
                except StopAsyncIteration:
                    continue
                waiting[asyncio.ensure_future(anext(streams[index]))] = index
                yield index, item
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
