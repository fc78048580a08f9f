"""From what happened to log lines: the state between a request's first event and its record.

Runs in the log's own thread. Everything arrives in order through one queue: what the facade says
of requests (`Opened`, `Closed`, `Sent`), and what engines publish with each step.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
from penstock.core.records import Begin, ChoiceRecord, Wait
from penstock.observe.assemble import (
    Choice,
    Closed,
    Entry,
    Gap,
    Opened,
    Sent,
    columns,
    make_record,
    redact,
)
from penstock.observe.segments import line

if TYPE_CHECKING:
    from penstock.engine.client import EngineStats

GRACE_S = 10.0
"""How long a record waits for the engine's last word, or for the socket, after its reader left."""

TIER = "device"
"""the only cache tier so far"""


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
        self._entries: dict[str, Entry] = {}
        self._choices: dict[str, Choice] = {}
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
        entry = Entry(opened)
        for index, choice_id in enumerate(opened.choice_ids):
            choice = self._choices[choice_id] = Choice(entry, ChoiceRecord(index))
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

    def _end_if_complete(self, entry: Entry) -> None:
        if entry.complete:
            self._end(entry)

    def _end(self, entry: Entry) -> None:
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

    def _rare(self, choice: Choice, event: Event, engine: int) -> None:
        """What happens a few times in a request's life."""
        record = choice.record
        if isinstance(event, Queued):
            record.queued = choice.waits_since = event.at
        elif isinstance(event, Held):
            self._waited(choice, event.id, event.at, engine)
            choice.held = (event.at, event.reason.value, event.behind)
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

    def _waited(self, choice: Choice, request_id: str, until: float, engine: int) -> None:
        """The choice leaves the queue: say what for it stood there."""
        since, choice.waits_since = choice.waits_since, None
        if since is not None:
            changes = self._blocked.get(engine, ())
            choice.record.waits += split_wait(changes, request_id, since, until)


def _end_hold(choice: Choice, at: float) -> None:
    if choice.held is not None:
        since, reason, behind = choice.held
        choice.record.waits.append(Wait(reason, round(at - since, 6), behind))
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
