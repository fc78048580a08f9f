"""What API and engine processes say to each other: msgpack frames of plain data.

Up:   ready (ModelInfo), failed (an error), step (events and stats), beat (what the engine does).
Down: submissions, aborts, stop.

A step's output tokens travel as columns, for they are most of the traffic; whatever else happened
travels as records before them, and endings after them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from penstock.core.events import (
    Blocked,
    CacheChanged,
    Chunk,
    Embedded,
    Event,
    Finished,
    Held,
    Preempted,
    PromptLogprobs,
    Queued,
    Released,
    Scheduled,
    TokensOut,
)
from penstock.core.request import FinishReason, Submission
from penstock.engine.client import EngineStats, ModelInfo
from penstock.engine.engine import Message

KINDS: tuple[type[Any], ...] = (
    Queued,
    Held,
    Scheduled,
    Preempted,
    TokensOut,
    PromptLogprobs,
    Finished,
    CacheChanged,
    Embedded,
    Released,
    Blocked,
    Chunk,
)
_CODES = {kind: code for code, kind in enumerate(KINDS)}
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


def encode_step(events: list[Event], stats: EngineStats) -> bytes:
    before: list[tuple[int, Event]] = []
    after: list[tuple[int, Event]] = []
    ids: list[str] = []
    tokens: list[list[int]] = []
    at, step = 0.0, 0
    for event in events:
        if type(event) is TokensOut and event.logprobs is None:
            ids.append(event.id)
            tokens.append(event.tokens)
            at, step = event.at, event.step
        elif type(event) in (TokensOut, Finished):
            after.append((_CODES[type(event)], event))
        else:
            before.append((_CODES[type(event)], event))
    return _encode(("step", before, ids, tokens, at, step, after, stats))


def encode_ready(info: ModelInfo) -> bytes:
    return _encode(("ready", info))


def encode_failed(error: dict[str, Any]) -> bytes:
    return _encode(("failed", error))


@dataclass(frozen=True, slots=True)
class Beat:
    """A sign of life."""

    phase: str = "starting"
    age_s: float = 0.0
    """how long the phase lasts by now"""
    limit_s: float = 0.0
    """when it is stuck; 0 = never"""


def encode_beat(beat: Beat) -> bytes:
    return _encode(("beat", beat))


Upward = tuple[list[Event], EngineStats] | ModelInfo | Beat | dict[str, Any]


def decode_upward(frame: bytes) -> Upward:
    kind, *rest = _decode(frame)
    if kind == "ready":
        return msgspec.convert(rest[0], ModelInfo)
    if kind == "beat":
        return msgspec.convert(rest[0], Beat)
    if kind == "failed":
        return dict(rest[0])
    before, ids, tokens, at, step, after, stats = rest
    events: list[Event] = [msgspec.convert(data, KINDS[code]) for code, data in before]
    events += [TokensOut(i, at, step, t) for i, t in zip(ids, tokens, strict=True)]
    events += [msgspec.convert(data, KINDS[code]) for code, data in after]
    return events, msgspec.convert(stats, EngineStats)


def encode_message(message: Message) -> bytes:
    return _encode(message)


def decode_message(frame: bytes) -> Message:
    data = _decode(frame)
    if data is None:
        return None
    if len(data) == 2 and isinstance(data[1], str):
        return data[0], FinishReason(data[1])
    return [msgspec.convert(item, Submission) for item in data]
