from __future__ import annotations

from penstock.core.events import (
    CacheChanged,
    Event,
    Finished,
    Held,
    Preempted,
    PromptLogprobs,
    Queued,
    Scheduled,
    TokensOut,
)
from penstock.core.plan import TokenLogprobs
from penstock.core.request import FinishReason, HoldReason
from penstock.engine import wire
from penstock.engine.client import EngineStats, ModelInfo
from penstock.errors import EngineError
from tests.fakes import submission

LOGPROB = TokenLogprobs(3, -0.5, 1, [3, 4], [-0.5, -2.0])


def test_a_step_arrives_as_it_was() -> None:
    events: list[Event] = [
        Queued("a", 1.0, 5),
        Held("b", 1.0, HoldReason.PREFIX, "a"),
        Scheduled("a", 1.0, 7, 4, False),
        Preempted("c", 1.0, 7, 9, "a"),
        PromptLogprobs("d", 1, [LOGPROB]),
        TokensOut("a", 2.0, 7, [1]),
        TokensOut("c", 2.0, 7, [2, 3]),
        TokensOut("d", 2.0, 7, [3], [LOGPROB]),
        Finished("a", 2.0, FinishReason.STOP, 5, 1, 4, 0, stop_id=1),
        Finished("c", 2.0, FinishReason.ERROR, 5, 1, 4, 0, error=EngineError("x").to_dict()),
    ]
    cache: Event = CacheChanged([b"\x00" * 16, b"\xff" * 16], [b"\x80" * 16])
    events.insert(5, cache)
    stats = EngineStats(at=2.0, running=3, step=7, step_s=0.25)
    got = wire.decode_upward(wire.encode_step(events, stats))
    assert got == (events, stats)


def test_start_and_failure_arrive() -> None:
    info = ModelInfo(
        vocab_size=10,
        max_model_len=20,
        eos_ids=(1, 2),
        block_size=4,
        num_blocks=5,
        max_num_seqs=6,
        max_num_batched_tokens=7,
        dtype="float32",
        device="cpu",
        architecture="X",
        stages_s={"load": 0.5},
    )
    assert wire.decode_upward(wire.encode_ready(info)) == info
    beat = wire.Beat("running step 7", 0.5, 5.0)
    assert wire.decode_upward(wire.encode_beat(beat)) == beat
    error = EngineError("no").to_dict()
    assert wire.decode_upward(wire.encode_failed(error)) == error


def test_messages_arrive() -> None:
    asked = [
        submission("a", [1, 2], stop_ids=(3,), logit_bias=((1, 0.5),), bad_words=((1, 2),)),
        submission("b", [1], output=[5, 6], session="s"),
    ]
    assert wire.decode_message(wire.encode_message(asked)) == asked
    abort = (["a", "b"], FinishReason.TIMEOUT)
    assert wire.decode_message(wire.encode_message(abort)) == abort
    assert wire.decode_message(wire.encode_message(None)) is None
