"""What is known of a request while it runs, and the record that it becomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from penstock.core.records import ChoiceRecord, Origin, RequestRecord, Steps
from penstock.core.request import Sampling

if TYPE_CHECKING:
    from penstock.engine.client import EngineStats

WORST_LAST = ("stop", "length", "abort", "timeout", "error")


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
    salt: str
    adapter: dict[str, str] | None
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


@dataclass(slots=True, eq=False)
class Choice:
    """One choice under way; times are absolute."""

    entry: Entry
    record: ChoiceRecord
    times: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    bursts: dict[int, int] = field(default_factory=dict)
    waits_since: float | None = None
    held: tuple[float, str, str] | None = None
    """since when, why, behind whom"""
    done: bool = False


@dataclass(slots=True, eq=False)
class Entry:
    opened: Opened
    choices: list[Choice] = field(default_factory=list)
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


_KNOWN = frozenset(
    [
        *("at", "engine", "step", "step_s", "device_s", "schedule_s", "restarts"),
        *("running", "waiting", "held", "blocks_total", "blocks_free", "blocks_cached"),
        *("prefill_tokens", "decode_tokens", "prefill_rows", "prefix_queries", "prefix_hits"),
        *("preemptions", "leaked_blocks"),
    ]
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
    entry: Entry,
    start: str,
    offset_s: float,
    decode: Callable[[list[int], bool], str] | None,
) -> RequestRecord:
    """offset_s: Unix time less monotonic time. decode: to check texts against their ids."""
    opened, closed = entry.opened, entry.closed
    for choice in entry.choices:
        answer = closed.answers[choice.record.index] if closed is not None else None
        finish_choice(choice, answer, opened.arrival_s)
        if answer is not None and decode is not None and closed is not None:
            choice.record.text_differs = differs(answer, closed.skip_special, decode)
    choices = [choice.record for choice in entry.choices]
    error = (closed.error if closed is not None else None) or entry.error
    ends = [choice.finish or "abort" for choice in choices]
    return RequestRecord(
        start=start,
        received_s=round(opened.arrival_s + offset_s, 6),
        choices=choices,
        detokenize_s=round(closed.detokenize_s, 6) if closed is not None else 0.0,
        num_output=sum(len(choice.ids or ()) for choice in choices),
        cached_tokens=sum(choices[0].cached.values()),
        preemptions=sum(len(choice.preempted) for choice in choices),
        finish="error" if error else max(ends, key=WORST_LAST.index),
        engine=choices[0].engines[-1] if choices[0].engines else 0,
        route=entry.route,
        error=error,
        lossy=entry.lossy,
        **_asked(opened),
        **_stages(entry),
    )


def _asked(opened: Opened) -> dict[str, Any]:
    origin = opened.origin
    return {
        "id": opened.id,
        "call": origin.call or opened.id,
        "prompt_ids": opened.prompt_ids,
        "prompt": opened.prompt,
        "num_prompt": len(opened.prompt_ids),
        "sampling": sampling_dict(opened.sampling),
        "seed": opened.sampling.seed,
        "given_seed": opened.given_seed,
        "n": len(opened.choice_ids),
        "params": opened.params,
        "endpoint": origin.endpoint,
        "model": origin.model,
        "key": origin.key,
        "slo_class": origin.slo_class,
        "session": opened.session,
        "priority": opened.priority,
        "stream": origin.stream,
        "salt": opened.salt,
        "adapter": opened.adapter,
        "tokenize_s": round(opened.tokenize_s, 6),
    }


def _stages(entry: Entry) -> dict[str, Any]:
    opened, origin = entry.opened, entry.opened.origin
    ended = entry.closed.at if entry.closed is not None else None
    stages = {
        "deadline": opened.deadline_s,
        "parsed": origin.parsed_s,
        "admitted": opened.admitted_s,
        "tokenizing": opened.tokenizing_s,
        "tokenized": opened.tokenized_s,
        "submitted": opened.submitted_s,
        "ended": ended,
        "sent": entry.sent_s if origin.sends else ended,
    }
    zero = opened.arrival_s
    return {k: None if at is None else round(at - zero, 6) for k, at in stages.items()}


def finish_choice(choice: Choice, answer: Answer | None, zero: float) -> None:
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
        record.gaps_us = [b - a for a, b in pairwise(micro)]
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
