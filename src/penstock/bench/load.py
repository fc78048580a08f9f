"""Open-loop load: each request is sent when it is due, whatever became of those before.

A turn of a session is due its wait after the answer before it. Times are measured from when a
request was due: a closed loop, or a clock that begins with the sending, would leave out just the
waiting that a slow server causes (coordinated omission; Tene 2013).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from time import perf_counter

from penstock.bench.client import Exchange, encode, exchange
from penstock.bench.http import HttpClient
from penstock.bench.prompts import FIRST_ID, WORDS
from penstock.bench.target import Target
from penstock.report.records import RequestRecord
from penstock.workload.prefixes import Prompt, token_ids
from penstock.workload.sessions import TimedRequest

SPIN_S = 0.002
"""How long before a request is due the loop stops sleeping: timers are not exact."""
LEAD_S = 0.2
"""From the begin of the run to its time 0."""
CONNECTIONS = 64
"""Opened beforehand."""
MAX_LAG_S = 0.001
"""Lag at the 99th percentile above which the generator was the bottleneck."""

SLO_CLASS = "x-slo-class"
"""Header of a request: its class, for servers that schedule by it."""

Told = Callable[[Sequence[RequestRecord], int], None]
"""told(records of requests that ended, number still open): after every one that ends"""


class Load:
    """One run against one server."""

    def __init__(
        self,
        client: HttpClient,
        target: Target,
        requests: Sequence[TimedRequest],
        told: Told,
        last_due_s: float = math.inf,
    ) -> None:
        """requests: in order of `at_s`. Turns that would be due after `last_due_s` are left out."""
        self._last_due_s = last_due_s
        self.records: list[RequestRecord] = []
        self._client, self._target, self._told = client, target, told
        self._roots = [request for request in requests if not request.parents]
        self._parents_left = {r.id: len(set(r.parents)) for r in requests if r.parents}
        self._followers: dict[int, list[TimedRequest]] = {}
        for request in requests:
            for parent in set(request.parents):
                self._followers.setdefault(parent, []).append(request)
        self._answers: dict[int, list[int]] = {}
        """ids that the server wrote, by the name of the answer's segment"""
        self._began = 0.0
        self._open = 0
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> list[RequestRecord]:
        """Every request to its end; records in order of their ends."""
        # Made beforehand: work between sendings would delay them, and the clocks of the streams.
        bodies = [self._body(request) for request in self._roots]
        await self._client.open(min(CONNECTIONS, len(bodies)))
        self._began = perf_counter() + LEAD_S
        async with asyncio.TaskGroup() as self._tasks:
            for request, body in zip(self._roots, bodies, strict=True):
                await self._until(request.at_s)
                self._tasks.create_task(self._one(request, body, request.at_s))
        return self.records

    async def _until(self, at_s: float) -> None:
        left = self._began + at_s - perf_counter()
        if left > SPIN_S:
            await asyncio.sleep(left - SPIN_S)
        while perf_counter() < self._began + at_s:  # noqa: ASYNC110 - the clock is what is awaited
            await asyncio.sleep(0)

    async def _one(self, request: TimedRequest, body: bytes, due_s: float) -> None:
        self._open += 1
        headers = {SLO_CLASS: request.slo_class}
        seen = await exchange(self._client, self._target.path, body, headers)
        self._open -= 1
        record = record_of(request, seen, due_s, self._began, perf_counter())
        self.records.append(record)
        self._told(self.records, self._open)
        if len(seen.token_ids) == request.output_tokens:
            self._answers[request.answer] = seen.token_ids
        for follower in self._followers.pop(request.id, ()):
            self._parents_left[follower.id] -= 1
            if not self._parents_left[follower.id]:
                assert self._tasks is not None
                self._tasks.create_task(self._follow(follower, perf_counter() - self._began))

    async def _follow(self, request: TimedRequest, answered_s: float) -> None:
        body = self._body(request)
        due_s = answered_s + request.wait_s
        if due_s > self._last_due_s:
            return
        await self._until(due_s)
        await self._one(request, body, due_s)

    def _body(self, request: TimedRequest) -> bytes:
        form, size = self._target.form, self._target.prompts.vocab_size
        ids = prompt_ids(request.prompt, self._answers, size)
        prompt: list[int] | str = ids
        if not form.ids:
            words = max(1, round(len(ids) * form.words_per_token))
            prompt = " ".join(WORDS[i % len(WORDS)] for i in ids[:words])
        return encode(form.body(self._target.model, prompt, request.output_tokens))


def prompt_ids(prompt: Prompt, answers: Mapping[int, list[int]], vocab_size: int) -> list[int]:
    """Ids of a prompt: what the server wrote where it repeats an answer, else made from names."""
    first = min(FIRST_ID, vocab_size // 4)
    ids: list[int] = []
    for segment in prompt:
        known = answers.get(segment.id)
        if known is not None and len(known) >= segment.tokens:
            ids += known[: segment.tokens]
        else:
            ids += token_ids((segment,), vocab_size, first)
    return ids


def record_of(
    request: TimedRequest, seen: Exchange, due_s: float, began: float, now: float
) -> RequestRecord:
    """began: the run's time 0 on the clock of the exchange; now: when it was over there."""
    arrivals = [at - began for at in seen.arrivals_s]
    gaps = [b - a for a, b in pairwise(arrivals)]
    return RequestRecord(
        id=str(request.id),
        due_s=due_s,
        input_tokens=seen.prompt_tokens or request.input_tokens,
        output_tokens=seen.output_tokens,
        wanted_tokens=request.output_tokens,
        cached_tokens=seen.cached_tokens,
        session=request.session,
        turn=request.turn,
        slo_class=request.slo_class,
        sent_s=seen.sent_s - began if seen.sent_s else None,
        first_s=arrivals[0] if arrivals else None,
        last_s=arrivals[-1] if arrivals else None,
        end_s=(now if seen.error else seen.ended_s) - began,
        longest_stall_s=max(gaps, default=None),
        error=seen.error,
        gaps_s=gaps,
    )
