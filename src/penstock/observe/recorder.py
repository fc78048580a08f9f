"""From what happened to log lines: the state between a request's first event and its record.

Runs in the log's own thread. Everything arrives in order through one queue: what the facade says
of requests (`Opened`, `Closed`, `Sent`), and what engines publish with each step.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from penstock.core.events import (
    Blocked,
    Chunk,
    Event,
    Finished,
    Held,
    Preempted,
    Queued,
    Released,
    Scheduled,
    TokensOut,
)
from penstock.core.records import Begin, ChoiceRecord, Origin, RequestRecord, Steps, Wait
from penstock.core.request import Sampling
from penstock.observe.segments import line

if TYPE_CHECKING:
    from penstock.engine.client import EngineStats

GRACE_S = 10.0
"""How long a record waits for the engine's last word, or for the socket, after its reader left."""

WORST_LAST = ("stop", "length", "abort", "timeout", "error")
TIER = "device"
"""the only cache tier so far"""


@dataclass(slots=True)
class Opened:
    """A request is about to be submitted. Times are absolute, on the monotonic clock."""

    id: str
    choice_ids: list[str]
    origin: Origin
    prompt: str | None
    prompt_ids: list[int]
    sampling: Sampling
    """of choice 0"""
    given_seed: bool
    params: dict[str, Any]
    priority: int
    session: str
    salted: bool
    arrival_s: float
    deadline_s: float | None
    admitted_s: float
    submitted_s: float
    tokenizing_s: float | None = None
    tokenized_s: float | None = None
    tokenize_s: float = 0.0


@dataclass(slots=True)
class Answer:
    """What the reader of one choice got."""

    ids: list[int]
    text: str
    finish: str | None
    stop_reason: str | int | None
    delivered_s: float | None
    logprobs: list[float] | None = None
    ranks: list[int] | None = None


@dataclass(slots=True)
class Closed:
    """Its reader has everything, or left."""

    id: str
    at: float
    answers: list[Answer]
    skip_special: bool
    detokenize_s: float
    error: dict[str, Any] | None = None


@dataclass(slots=True)
class Sent:
    """The last byte of the reply to this call was handed to the socket."""

    origin: Origin
    at: float


class Gap:
    """Items were dropped here."""


Step = tuple[list[Event], "EngineStats"]
Item = Opened | Closed | Sent | Gap | Step


@dataclass(frozen=True, slots=True)
class Keep:
    """What is written of what is known. sample: share of requests, chosen by their ids; those that
    end in an error are always kept."""

    sample: float = 1.0
    redact: tuple[str, ...] = ()
    steps: bool = True

    def chooses(self, request_id: str) -> bool:
        return zlib.crc32(request_id.encode()) < self.sample * 2**32


@dataclass(slots=True, eq=False)
class _Choice:
    """One choice under way; times are absolute."""

    entry: _Entry
    record: ChoiceRecord
    times: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    bursts: dict[int, int] = field(default_factory=dict)
    waits_since: float | None = None
    held: tuple[float, str] | None = None
    done: bool = False


@dataclass(slots=True, eq=False)
class _Entry:
    opened: Opened
    choices: list[_Choice] = field(default_factory=list)
    closed: Closed | None = None
    sent_s: float | None = None
    route: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    lossy: bool = False

    @property
    def complete(self) -> bool:
        return (
            self.closed is not None
            and all(choice.done for choice in self.choices)
            and (self.sent_s is not None or not self.opened.origin.sends)
        )


class Recorder:
    """Turns items into lines. `decode(ids, skip_special_tokens)` is the tokenizer's, to check the
    texts that were sent against their ids."""

    def __init__(
        self,
        start: str,
        wall_less_mono_s: float,
        keep: Keep,
        decode: Callable[[list[int], bool], str] | None = None,
    ) -> None:
        self._start, self._offset = start, wall_less_mono_s
        self._keep, self._decode = keep, decode
        self._entries: dict[str, _Entry] = {}
        self._choices: dict[str, _Choice] = {}
        self._blocked: dict[int, list[Blocked]] = {}
        self._steps: dict[int, list[EngineStats]] = {}
        self.lines: list[bytes] = []
        """to be written, and emptied, by whoever drives this"""
        self.last_stats: dict[int, tuple[float, EngineStats]] = {}
        """by engine: when it last said anything, and what"""

    @property
    def num_open(self) -> int:
        return len(self._entries)

    def take(self, item: Item) -> None:
        if isinstance(item, tuple):
            self._step(*item)
        elif isinstance(item, Opened):
            self._open(item)
        elif isinstance(item, Closed):
            self._close(item)
        elif isinstance(item, Sent):
            for entry in [e for e in self._entries.values() if e.opened.origin is item.origin]:
                entry.sent_s = item.at
                self._end_if_complete(entry)
        else:
            for entry in self._entries.values():
                entry.lossy = True

    def tick(self, now: float) -> None:
        """To be called a few times a second: writes steps, and ends what nobody will end."""
        for engine, stats in self._steps.items():
            if stats:
                self.lines.append(line(columns(engine, stats)))
                stats.clear()
        for entry in list(self._entries.values()):
            if entry.closed is not None and now > entry.closed.at + GRACE_S:
                self._end(entry)
        waiting = [c.waits_since for c in self._choices.values() if c.waits_since is not None]
        oldest = min(waiting, default=now)
        for changes in self._blocked.values():
            while len(changes) > 1 and changes[1].at <= oldest:
                del changes[0]

    def finish(self, now: float) -> None:
        """The log ends: what is closed is written as it is."""
        self.tick(now)
        for entry in list(self._entries.values()):
            if entry.closed is not None:
                self._end(entry)

    # Requests

    def _open(self, opened: Opened) -> None:
        entry = _Entry(opened)
        for index, choice_id in enumerate(opened.choice_ids):
            choice = self._choices[choice_id] = _Choice(entry, ChoiceRecord(index))
            entry.choices.append(choice)
        self._entries[opened.id] = entry
        if self._keep.chooses(opened.id):
            begin = Begin(
                opened.id,
                opened.origin.call,
                opened.arrival_s + self._offset,
                len(opened.prompt_ids),
                len(opened.choice_ids),
                "" if "session" in self._keep.redact else opened.session,
                opened.origin.endpoint,
            )
            self.lines.append(line(begin))

    def _close(self, closed: Closed) -> None:
        entry = self._entries.get(closed.id)
        if entry is not None:
            entry.closed = closed
            if closed.error is not None:  # the engine may have no more to say of it
                for choice in entry.choices:
                    choice.done = True
            self._end_if_complete(entry)

    def _end_if_complete(self, entry: _Entry) -> None:
        if entry.complete:
            self._end(entry)

    def _end(self, entry: _Entry) -> None:
        opened = entry.opened
        del self._entries[opened.id]
        for choice_id in opened.choice_ids:
            self._choices.pop(choice_id, None)
        record = make_record(entry, self._start, self._offset, self._decode)
        if record.finish == "error" or self._keep.chooses(opened.id):
            self.lines.append(line(redact(record, self._keep.redact)))

    # Engines

    def _step(self, events: list[Event], stats: EngineStats) -> None:
        self.last_stats[stats.engine] = (stats.at, stats)
        if self._keep.steps and stats.prefill_tokens + stats.decode_tokens:
            self._steps.setdefault(stats.engine, []).append(stats)
        choices = self._choices
        for event in events:
            if type(event) is TokensOut:
                choice = choices.get(event.id)
                if choice is not None:
                    if len(event.tokens) != 1:
                        choice.bursts[len(choice.times)] = len(event.tokens)
                    choice.times.append(event.at)
                    choice.steps.append(event.step)
            elif type(event) is Blocked:
                self._blocked.setdefault(stats.engine, []).append(event)
            elif (choice := choices.get(event.id)) is not None:
                self._rare(choice, event, stats.engine)

    def _rare(self, choice: _Choice, event: Event, engine: int) -> None:
        """What happens a few times in a request's life."""
        record = choice.record
        if isinstance(event, Queued):
            record.queued = choice.waits_since = event.at
        elif isinstance(event, Held):
            self._waited(choice, event.id, event.at, engine)
            choice.held = (event.at, event.behind)
        elif isinstance(event, Released):
            _end_hold(choice, event.at)
            choice.waits_since = event.at
        elif isinstance(event, Scheduled):
            self._waited(choice, event.id, event.at, engine)
            if engine not in record.engines:
                record.engines.append(engine)
            if record.scheduled is None:
                record.scheduled = event.at
                record.cached = {TIER: event.cached_tokens} if event.cached_tokens else {}
            else:
                record.resumed.append((event.at, event.cached_tokens))
            choice.entry.route = event.route or choice.entry.route
        elif isinstance(event, Chunk):
            record.chunks.append((event.at, event.step, event.start, event.count))
        elif isinstance(event, Preempted):
            record.preempted.append((event.at, event.step, event.lost_tokens, event.by))
            choice.waits_since = event.at
        elif isinstance(event, Finished):
            self._waited(choice, event.id, event.at, engine)
            _end_hold(choice, event.at)
            record.finished, record.num_generated = event.at, event.num_output
            record.finish = event.reason.value
            choice.entry.error = event.error or choice.entry.error
            choice.done = True
            self._end_if_complete(choice.entry)

    def _waited(self, choice: _Choice, request_id: str, until: float, engine: int) -> None:
        """The choice leaves the queue: say what for it stood there."""
        since, choice.waits_since = choice.waits_since, None
        if since is not None:
            changes = self._blocked.get(engine, ())
            choice.record.waits += split_wait(changes, request_id, since, until)


def _end_hold(choice: _Choice, at: float) -> None:
    if choice.held is not None:
        since, behind = choice.held
        choice.record.waits.append(Wait("prefix", round(at - since, 6), behind))
        choice.held = None


def split_wait(
    changes: Sequence[Blocked], request_id: str, since: float, until: float
) -> list[Wait]:
    """[since, until] in the queue, by what it stood for; changes are in order of time."""
    waits: list[Wait] = []
    edges = [*(change.at for change in changes), until]
    first = edges[0] if changes else until
    pieces: list[tuple[float, float, str, str]] = [(since, first, "step", "")]
    for change, end in zip(changes, edges[1:], strict=True):
        reason = change.reason.value if change.reason else "step"
        behind = change.behind if change.head == request_id else change.head
        pieces.append((change.at, end, reason, behind))
    for begin, end, reason, behind in pieces:
        length = min(end, until) - max(begin, since)
        if length <= 0:
            continue
        if waits and (waits[-1].reason, waits[-1].behind) == (reason, behind):
            waits[-1].s = round(waits[-1].s + length, 6)
        else:
            waits.append(Wait(reason, round(length, 6), behind))
    return waits


_KNOWN = frozenset(
    "at running waiting held blocks_total blocks_free blocks_cached step step_s device_s schedule_s"
    " prefill_tokens decode_tokens prefill_rows prefix_queries prefix_hits preemptions"
    " leaked_blocks engine restarts".split()
)


def columns(engine: int, stats: Sequence[EngineStats]) -> Steps:
    """Statistics of steps as columns; numbers that this module does not know go into `more`."""
    last = stats[-1]
    extra = [f.name for f in fields(last) if f.name not in _KNOWN]
    more: dict[str, list[float]] = {}
    for name in extra:
        values = [getattr(each, name) for each in stats]
        if any(values) and all(isinstance(value, int | float) for value in values):
            more[name] = [round(value, 7) for value in values]
    return Steps(
        engine=engine,
        at=[round(each.at, 6) for each in stats],
        step=[each.step for each in stats],
        step_us=[int(each.step_s * 1e6) for each in stats],
        device_us=[int(each.device_s * 1e6) for each in stats],
        schedule_us=[int(each.schedule_s * 1e6) for each in stats],
        prefill_tokens=[each.prefill_tokens for each in stats],
        decode_tokens=[each.decode_tokens for each in stats],
        prefill_rows=[each.prefill_rows for each in stats],
        running=[each.running for each in stats],
        waiting=[each.waiting for each in stats],
        held=[each.held for each in stats],
        blocks_free=[each.blocks_free for each in stats],
        blocks_cached=[each.blocks_cached for each in stats],
        blocks_total=last.blocks_total,
        preemptions=last.preemptions,
        leaked_blocks=last.leaked_blocks,
        restarts=last.restarts,
        more=more,
    )


_NEUTRAL = Sampling()


def sampling_dict(sampling: Sampling) -> dict[str, Any]:
    """The fields that are not neutral; `Sampling(**fields)` is the whole again. The seed stands
    in the record itself."""
    names = (f.name for f in fields(sampling) if f.name not in ("seed", "choice"))
    found = {name: getattr(sampling, name) for name in names}
    return {name: value for name, value in found.items() if value != getattr(_NEUTRAL, name)}


def make_record(
    entry: _Entry,
    start: str,
    offset_s: float,
    decode: Callable[[list[int], bool], str] | None,
) -> RequestRecord:
    opened, closed = entry.opened, entry.closed
    origin, zero = opened.origin, opened.arrival_s

    def since(at: float | None) -> float | None:
        return None if at is None else round(at - zero, 6)

    choices = []
    for choice in entry.choices:
        answer = closed.answers[choice.record.index] if closed is not None else None
        finish_choice(choice, answer, zero)
        if answer is not None and decode is not None and closed is not None:
            choice.record.text_differs = differs(answer, closed.skip_special, decode)
        choices.append(choice.record)
    ended = closed.at if closed is not None else None
    error = (closed.error if closed is not None else None) or entry.error
    ends = [choice.finish or "abort" for choice in choices]
    return RequestRecord(
        id=opened.id,
        call=origin.call or opened.id,
        start=start,
        received_s=round(zero + offset_s, 6),
        prompt_ids=opened.prompt_ids,
        prompt=opened.prompt,
        sampling=sampling_dict(opened.sampling),
        seed=opened.sampling.seed,
        given_seed=opened.given_seed,
        n=len(choices),
        params=opened.params,
        choices=choices,
        endpoint=origin.endpoint,
        model=origin.model,
        key=origin.key,
        slo_class=origin.slo_class,
        session=opened.session,
        priority=opened.priority,
        stream=origin.stream,
        salted=opened.salted,
        deadline=since(opened.deadline_s),
        parsed=since(origin.parsed_s),
        admitted=since(opened.admitted_s),
        tokenizing=since(opened.tokenizing_s),
        tokenized=since(opened.tokenized_s),
        submitted=since(opened.submitted_s),
        ended=since(ended),
        sent=since(entry.sent_s if origin.sends else ended),
        tokenize_s=round(opened.tokenize_s, 6),
        detokenize_s=round(closed.detokenize_s, 6) if closed is not None else 0.0,
        num_prompt=len(opened.prompt_ids),
        num_output=sum(len(choice.ids or ()) for choice in choices),
        cached_tokens=sum(choices[0].cached.values()),
        preemptions=sum(len(choice.preempted) for choice in choices),
        finish="error" if error else max(ends, key=WORST_LAST.index),
        engine=choices[0].engines[-1] if choices[0].engines else 0,
        route=entry.route,
        error=error,
        lossy=entry.lossy,
    )


def finish_choice(choice: _Choice, answer: Answer | None, zero: float) -> None:
    """Complete the record: absolute times become seconds since arrival."""
    record = choice.record
    if answer is not None:
        record.ids, record.text = answer.ids, answer.text
        record.finish, record.stop_reason = answer.finish or record.finish, answer.stop_reason
        record.logprobs, record.ranks = answer.logprobs, answer.ranks
        if answer.delivered_s is not None:
            record.delivered = round(answer.delivered_s - zero, 6)
    for name in ("queued", "scheduled", "finished"):
        at = getattr(record, name)
        if at is not None:
            setattr(record, name, round(at - zero, 6))
    record.chunks = [(round(at - zero, 6), *rest) for at, *rest in record.chunks]  # type: ignore[misc]
    record.preempted = [(round(at - zero, 6), *rest) for at, *rest in record.preempted]  # type: ignore[misc]
    record.resumed = [(round(at - zero, 6), cached) for at, cached in record.resumed]
    times = choice.times
    if times:
        record.first_token = round(times[0] - zero, 6)
        micro = [round((at - zero) * 1e6) for at in times]
        record.gaps_us = [b - a for a, b in zip(micro, micro[1:], strict=False)]
        record.steps = runs(choice.steps)
    if choice.bursts:
        record.burst = [choice.bursts.get(i, 1) for i in range(len(times))]


def runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending numbers as (first, how many in a row)."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and number == found[-1][0] + found[-1][1]:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((number, 1))
    return found


def differs(
    answer: Answer, skip_special: bool, decode: Callable[[list[int], bool], str]
) -> int | None:
    """Where the text that was sent leaves that of its ids. It may end earlier, at a stop string or
    where the reader left; the silent stop id may be missing at its end."""
    whole = decode(answer.ids, skip_special)
    if whole.startswith(answer.text):
        cut = answer.finish in ("abort", "timeout", "error") or answer.stop_reason is not None
        silent = answer.finish == "stop" and decode(answer.ids[:-1], skip_special) == answer.text
        if cut or silent or len(whole) == len(answer.text):
            return None
    if answer.finish == "stop" and decode(answer.ids[:-1], skip_special) == answer.text:
        return None
    pairs = zip(whole, answer.text, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(whole), len(answer.text)))


def redact(record: RequestRecord, names: tuple[str, ...]) -> RequestRecord:
    """The record without what these names stand for."""
    if not names:
        return record
    for name in ("prompt", "prompt_ids", "key", "session"):
        if name in names:
            setattr(record, name, None)
    for choice in record.choices:
        if "output" in names:
            choice.text = None
            if isinstance(choice.stop_reason, str):
                choice.stop_reason = ""
        if "output_ids" in names:
            choice.ids = None
    if "params" in names:
        record.params = {}
        for name in ("logit_bias", "bad_words"):
            record.sampling.pop(name, None)
    record.redacted = list(names)
    return record
