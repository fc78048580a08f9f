from __future__ import annotations

from typing import Any

import msgspec
import pytest

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
    WaitReason,
)
from penstock.core.records import Begin, Origin, RequestRecord, Steps, Wait
from penstock.core.request import FinishReason, HoldReason, Sampling
from penstock.engine.client import EngineStats
from penstock.observe.assemble import (
    Answer,
    Closed,
    Gap,
    Opened,
    Sent,
    differs,
    runs,
    sampling_dict,
)
from penstock.observe.recorder import GRACE_S, Keep, Recorder, split_wait


def opened(id: str = "r", n: int = 1, **fields: Any) -> Opened:
    given: dict[str, Any] = {
        "choice_ids": [id] if n == 1 else [f"{id}-{i}" for i in range(n)],
        "origin": Origin(call="client's"),
        "prompt": "ab",
        "prompt_ids": [1, 2],
        "sampling": Sampling(temperature=0.0, seed=7, max_tokens=3, bad_words=((5,),)),
        "given_seed": True,
        "params": {"stop": ["x"]},
        "priority": 0,
        "session": "s",
        "salt": "",
        "adapter": None,
        "arrival_s": 10.0,
        "deadline_s": None,
        "admitted_s": 10.125,
        "submitted_s": 10.25,
    }
    return Opened(id, **{**given, **fields})


def answer(**fields: Any) -> Answer:
    given: dict[str, Any] = {
        "ids": [7, 8, 9],
        "text": "789",
        "finish": "length",
        "stop_reason": None,
        "delivered_s": 14.25,
    }
    return Answer(**{**given, **fields})


def closed(id: str = "r", at: float = 14.5, n: int = 1, **fields: Any) -> Closed:
    return Closed(id, at, [answer() for _ in range(n)], True, 0.5, **fields)


def finished(
    id: str = "r", at: float = 14.0, reason: FinishReason = FinishReason.LENGTH
) -> Finished:
    return Finished(id, at, reason, 2, 3, cached_tokens=0, preemptions=1)


LIFE: list[Event] = [
    Queued("r", 10.5, 2),
    Blocked(10.75, WaitReason.SLOTS, "r", "runner"),
    Scheduled("r", 11.0, 4, 16, resumed=False, route={"engine": 0}),
    Chunk("r", 11.5, 4, 16, 2),
    TokensOut("r", 11.5, 4, [7]),
    Preempted("r", 12.0, 6, lost_tokens=3, by="other"),
    Scheduled("r", 13.0, 8, 16, resumed=True),
    TokensOut("r", 13.5, 8, [8]),
    TokensOut("r", 14.0, 9, [9]),
    finished(),
]


class Tape:
    """A recorder and what it wrote."""

    def __init__(self, **keep: Any) -> None:
        self.recorder = Recorder(
            "start", 1000.0, Keep(**keep), lambda ids, skip: "".join(map(str, ids))
        )

    def step(self, *events: Event, **stats: Any) -> None:
        self.recorder.take((list(events), EngineStats(at=0.0, **stats)))

    def written(self, kind: str) -> list[Any]:
        types = {"begin": Begin, "request": RequestRecord, "steps": Steps}
        tag = f'{{"t":"{kind}"'.encode()
        lines = [text for text in self.recorder.lines if text.startswith(tag)]
        return [msgspec.json.decode(text, type=types[kind]) for text in lines]


def served(tape: Tape, request: Opened | None = None, **end: Any) -> Tape:
    tape.recorder.take(request or opened())
    tape.step(*LIFE)
    tape.recorder.take(closed(**end))
    return tape


def test_the_life_of_a_request() -> None:
    tape = served(Tape())
    (begin,) = tape.written("begin")
    assert (begin.id, begin.call, begin.received_s) == ("r", "client's", 1010.0)
    (record,) = tape.written("request")
    assert (record.received_s, record.admitted, record.submitted) == (1010.0, 0.125, 0.25)
    assert (record.ended, record.sent, record.finish, record.error) == (4.5, 4.5, "length", None)
    assert record.sampling == {"temperature": 0.0, "max_tokens": 3, "bad_words": [[5]]}
    assert (record.seed, record.given_seed, record.params) == (7, True, {"stop": ["x"]})
    assert (record.num_output, record.cached_tokens, record.preemptions) == (3, 16, 1)
    assert record.route == {"engine": 0}
    (choice,) = record.choices
    assert (choice.queued, choice.scheduled, choice.finished) == (0.5, 1.0, 4.0)
    assert choice.waits == [
        Wait("step", 0.25),
        Wait("slots", 0.25, "runner"),
        Wait("slots", 1.0, "runner"),
    ]
    assert choice.chunks == [(1.5, 4, 16, 2)]
    assert choice.preempted == [(2.0, 6, 3, "other")]
    assert choice.resumed == [(3.0, 16)]
    assert (choice.first_token, choice.gaps_us) == (1.5, [2_000_000, 500_000])
    assert (choice.steps, choice.burst) == ([(4, 1), (8, 2)], None)
    assert (choice.ids, choice.text, choice.text_differs) == ([7, 8, 9], "789", None)
    assert tape.recorder.num_open == 0


def test_a_reply_to_a_socket_is_waited_for() -> None:
    tape = Tape()
    origin = Origin(call="c", sends=True)
    served(tape, opened(origin=origin))
    assert tape.written("request") == []
    tape.recorder.take(Sent(origin, 16.0))
    (record,) = tape.written("request")
    assert (record.ended, record.sent) == (4.5, 6.0)


def test_what_nobody_ends_is_written_after_a_while() -> None:
    tape = Tape()
    tape.recorder.take(opened())
    tape.recorder.take(closed(at=20.0))
    tape.recorder.tick(20.0 + GRACE_S)
    assert tape.written("request") == []
    tape.recorder.tick(20.1 + GRACE_S)
    assert len(tape.written("request")) == 1
    tape.recorder.take(opened("late"))
    tape.recorder.take(closed("late"))
    tape.recorder.take(opened("open"))
    tape.recorder.finish(21.0)
    assert [r.id for r in tape.written("request")] == ["r", "late"]


def test_several_choices_and_bursts() -> None:
    tape = Tape()
    tape.recorder.take(opened(n=2))
    tape.step(Queued("r-0", 11.0, 2), Queued("r-1", 11.0, 2))
    tape.step(TokensOut("r-0", 12.0, 1, [1, 2]), TokensOut("r-1", 12.0, 1, [1]))
    tape.step(
        TokensOut("r-0", 12.5, 2, [3]),
        finished("r-0", 12.5),
        finished("r-1", 12.5, FinishReason.STOP),
    )
    tape.recorder.take(closed(n=2))
    (record,) = tape.written("request")
    assert [c.burst for c in record.choices] == [[2, 1], None]
    assert record.n == 2
    assert record.finish == "length", "the worst of all"


def test_an_error_ends_it_at_once() -> None:
    tape = Tape(sample=0.0)
    tape.recorder.take(opened())
    tape.recorder.take(closed(error={"code": "engine_dead", "message": "gone"}))
    (record,) = tape.written("request")
    assert (record.finish, record.error["code"]) == ("error", "engine_dead")
    assert tape.written("begin") == []


def test_sampling_keeps_a_share_by_id() -> None:
    keep = Keep(sample=0.25)
    kept = [keep.chooses(f"request {i}") for i in range(2000)]
    assert 400 < sum(kept) < 600
    assert all(Keep().chooses(f"request {i}") for i in range(100))
    assert served(Tape(sample=0.0)).recorder.lines == []


def test_redaction() -> None:
    names = ("prompt", "prompt_ids", "output", "output_ids", "key", "session", "params")
    tape = served(Tape(redact=names), opened(origin=Origin(key="k")))
    (record,) = tape.written("request")
    assert (record.prompt, record.prompt_ids, record.key, record.session) == (None,) * 4
    assert (record.choices[0].text, record.choices[0].ids, record.params) == (None, None, {})
    assert "bad_words" not in record.sampling
    assert record.redacted == list(names)
    assert (record.num_prompt, record.num_output) == (2, 3)
    text = b"".join(tape.recorder.lines)
    assert b'"ab"' not in text
    assert b'"789"' not in text
    assert tape.written("begin")[0].session == ""


def test_held_behind_a_shared_prefix() -> None:
    tape = Tape()
    tape.recorder.take(opened())
    tape.step(
        Queued("r", 10.5, 2),
        Held("r", 11.0, HoldReason.PREFIX, "leader"),
        Released("r", 12.0),
        Blocked(12.25, WaitReason.BLOCKS, "first", "runner"),
        Scheduled("r", 13.0, 1, 0, resumed=False),
        finished(),
    )
    tape.recorder.take(closed())
    (record,) = tape.written("request")
    assert record.choices[0].waits == [
        Wait("step", 0.5),
        Wait("prefix", 1.0, "leader"),
        Wait("step", 0.25),
        Wait("blocks", 0.75, "first"),
    ]


def test_waits_sum_to_the_time_in_the_queue() -> None:
    changes = [
        Blocked(1.0, WaitReason.TOKENS, "a", "b"),
        Blocked(2.0, None),
        Blocked(3.0, WaitReason.SLOTS, "me", "b"),
    ]
    for since, until in ((0.0, 5.0), (1.5, 2.5), (4.0, 4.5), (0.25, 0.5)):
        assert sum(w.s for w in split_wait(changes, "me", since, until)) == until - since
    assert split_wait([], "me", 0.0, 2.0) == [Wait("step", 2.0)]
    assert split_wait(changes, "me", 3.5, 4.0) == [Wait("slots", 0.5, "b")]


def test_steps_are_columns_and_idle_ones_are_none() -> None:
    tape = Tape()
    tape.step(step=1, prefill_tokens=4, prefill_rows=1, step_s=0.002, blocks_total=9)
    tape.step(step=1)
    tape.step(step=2, decode_tokens=1, step_s=0.001, device_s=0.0005, engine=0)
    tape.step(step=5, decode_tokens=2, engine=1)
    tape.recorder.tick(0.0)
    one, two = tape.written("steps")
    assert (one.engine, one.step, one.step_us, one.device_us) == (0, [1, 2], [2000, 1000], [0, 500])
    assert (one.prefill_tokens, one.prefill_rows, one.decode_tokens) == ([4, 0], [1, 0], [0, 1])
    assert (two.engine, two.step) == (1, [5])
    tape.recorder.tick(1.0)
    assert len(tape.written("steps")) == 2
    quiet = Tape(steps=False)
    quiet.step(step=1, prefill_tokens=4)
    quiet.recorder.tick(0.0)
    assert quiet.recorder.lines == []


def test_a_gap_marks_what_was_open() -> None:
    tape = Tape()
    tape.recorder.take(opened())
    tape.recorder.take(Gap())
    tape.step(*LIFE)
    tape.recorder.take(closed())
    assert tape.written("request")[0].lossy


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({}, None),
        ({"text": "78", "finish": "stop"}, None),
        ({"text": "7", "finish": "abort"}, None),
        ({"text": "78", "finish": "stop", "stop_reason": "9"}, None),
        ({"text": "7x9"}, 1),
        ({"text": "78"}, 2),
        ({"text": "7899"}, 3),
    ],
)
def test_texts_are_checked_against_their_ids(fields: dict[str, Any], place: int | None) -> None:
    assert differs(answer(**fields), True, lambda ids, skip: "".join(map(str, ids))) == place


def test_small_things() -> None:
    assert runs([3, 4, 5, 9, 11, 12]) == [(3, 3), (9, 1), (11, 2)]
    given = Sampling(top_k=5, seed=3, logit_bias=((1, 2.0),))
    assert Sampling(**sampling_dict(given), seed=3) == given
