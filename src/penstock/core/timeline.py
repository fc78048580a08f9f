"""When what happened to a request: the one definition of TTFT, ITL, TPOT and their kin.

    arrived   queued      scheduled            first token        last token   finished
       | intake |  queue     |      prefill         |     decode      |   tail    |
       |---------------- TTFT ----------------------|                             |
       |                     |------------- inference ----------------|           |
       |------------------------------------ e2e ---------------------------------|

TPOT = (e2e - TTFT) / (n - 1) for n output tokens. ITL: the time between two steps that gave the
request tokens, one observation a gap, never averaged; the longest of them is the longest stall.
Time that a preempted request waits for its slot lies in prefill or decode, wherever it fell.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from penstock.core.events import Event, Finished, Queued, Scheduled, TokensOut
from penstock.core.request import FinishReason


@dataclass(frozen=True, slots=True)
class Timeline:
    """One finished request. Instants are on the scheduler's clock, durations in seconds.

    An instant that was not reached is None, and so are the durations that need it.
    """

    id: str
    arrived: float
    queued: float
    scheduled: float | None
    """first admission; a preemption does not move it"""
    first_token: float | None
    last_token: float | None
    finished: float
    longest_stall_s: float | None
    """None when tokens came in fewer than two steps"""
    num_prompt: int
    num_output: int
    cached_tokens: int
    preemptions: int
    reason: FinishReason

    @property
    def answered(self) -> bool:
        """Whether the client got all that it was to get."""
        return self.reason in (FinishReason.STOP, FinishReason.LENGTH)

    @property
    def intake_s(self) -> float:
        """Before the engine: parsing, template, tokenizing, the way to the engine's process."""
        return self.queued - self.arrived

    @property
    def queue_s(self) -> float | None:
        return _between(self.queued, self.scheduled)

    @property
    def prefill_s(self) -> float | None:
        return _between(self.scheduled, self.first_token)

    @property
    def decode_s(self) -> float | None:
        return _between(self.first_token, self.last_token)

    @property
    def inference_s(self) -> float | None:
        return _between(self.scheduled, self.last_token)

    @property
    def ttft_s(self) -> float | None:
        return _between(self.arrived, self.first_token)

    @property
    def e2e_s(self) -> float:
        return self.finished - self.arrived

    @property
    def tpot_s(self) -> float | None:
        """None with fewer than two output tokens."""
        if self.ttft_s is None or self.num_output < 2:
            return None
        return (self.e2e_s - self.ttft_s) / (self.num_output - 1)


class Progress:
    """A request on its way to a `Timeline`: constant memory, one call an event."""

    __slots__ = ("_first", "_last", "_longest", "_queued", "_scheduled")

    def __init__(self, queued: Queued) -> None:
        self._queued = queued
        self._scheduled: float | None = None
        self._first: float | None = None
        self._last: float | None = None
        self._longest: float | None = None

    @property
    def num_prompt(self) -> int:
        return self._queued.num_prompt

    def scheduled(self, event: Scheduled) -> None:
        if self._scheduled is None:
            self._scheduled = event.at

    def tokens(self, at: float) -> float | None:
        """Tokens came. Returns the gap since the last ones in seconds; None for the first."""
        last, self._last = self._last, at
        if last is None:
            self._first = at
            return None
        gap = at - last
        if self._longest is None or gap > self._longest:
            self._longest = gap
        return gap

    def finish(self, event: Finished) -> Timeline:
        queued = self._queued
        return Timeline(
            id=queued.id,
            arrived=queued.at if queued.arrived is None else queued.arrived,
            queued=queued.at,
            scheduled=self._scheduled,
            first_token=self._first,
            last_token=self._last,
            finished=event.at,
            longest_stall_s=self._longest,
            num_prompt=event.num_prompt,
            num_output=event.num_output,
            cached_tokens=event.cached_tokens,
            preemptions=event.preemptions,
            reason=event.reason,
        )


def timeline(events: Iterable[Event]) -> Timeline:
    """The timeline of one request from its events in order, `Queued` first and `Finished` last.

    Raises ValueError when one of the two is missing.
    """
    progress: Progress | None = None
    for event in events:
        if isinstance(event, Queued):
            progress = Progress(event)
        elif progress is None:
            raise ValueError(f"{event.id}: {type(event).__name__} before Queued")
        elif isinstance(event, Scheduled):
            progress.scheduled(event)
        elif isinstance(event, TokensOut):
            progress.tokens(event.at)
        elif isinstance(event, Finished):
            return progress.finish(event)
    raise ValueError("the events end before Finished")


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else end - start
