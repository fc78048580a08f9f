"""The definitions of TTFT, ITL, TPOT and their kin, on requests small enough to check by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.events import (
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
from penstock.core.timeline import timeline


def finished(at: float, num_output: int, reason: FinishReason = FinishReason.LENGTH) -> Finished:
    return Finished("a", at, reason, 7, num_output, cached_tokens=4, preemptions=1)


WHOLE: list[Event] = [
    Queued("a", 10.5, 7, arrived=10.0),
    Held("a", 10.6, HoldReason.PREFIX, "b"),
    Scheduled("a", 11.0, 1, cached_tokens=4, resumed=False),
    PromptLogprobs("a", 1, [TokenLogprobs(1, 0.0, 1, [], [])]),
    TokensOut("a", 12.0, 2, [5]),
    TokensOut("a", 12.25, 3, [6, 7]),
    Preempted("a", 12.3, 4, 9, "b"),
    Scheduled("a", 13.0, 6, cached_tokens=8, resumed=True),
    TokensOut("a", 14.0, 7, [8]),
    finished(14.5, 4),
]


def test_every_duration_of_a_whole_request() -> None:
    found = timeline(WHOLE)
    assert (found.intake_s, found.queue_s, found.prefill_s) == (0.5, 0.5, 1.0)
    assert (found.decode_s, found.inference_s) == (2.0, 3.0)
    assert (found.ttft_s, found.e2e_s) == (2.0, 4.5)
    assert found.tpot_s == (4.5 - 2.0) / 3
    assert found.longest_stall_s == 1.75
    assert (found.num_prompt, found.num_output) == (7, 4)
    assert (found.cached_tokens, found.preemptions) == (4, 1)
    assert found.reason is FinishReason.LENGTH


def test_without_an_arrival_the_queue_is_the_start() -> None:
    found = timeline([Queued("a", 3.0, 7), finished(5.0, 0, FinishReason.ABORT)])
    assert (found.intake_s, found.e2e_s) == (0.0, 2.0)


def test_a_request_that_never_ran() -> None:
    found = timeline([Queued("a", 3.0, 7), finished(5.0, 0, FinishReason.TIMEOUT)])
    for name in ("scheduled", "first_token", "queue_s", "prefill_s", "decode_s", "inference_s"):
        assert getattr(found, name) is None
    assert found.ttft_s is found.tpot_s is found.longest_stall_s is None


def test_one_token_has_no_gap() -> None:
    found = timeline([*WHOLE[:5], finished(12.0, 1)])
    assert (found.ttft_s, found.decode_s, found.e2e_s) == (2.0, 0.0, 2.0)
    assert found.tpot_s is found.longest_stall_s is None


@pytest.mark.parametrize(
    ("events", "what"), [(WHOLE[2:], "before Queued"), (WHOLE[:-1], "before Finished"), ([], "end")]
)
def test_an_incomplete_account_is_refused(events: list[Event], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        timeline(events)


@given(st.lists(st.floats(0, 100), min_size=5, max_size=5))
def test_the_parts_add_up_to_the_whole(gaps: list[float]) -> None:
    at = [sum(gaps[:i]) for i in range(6)]
    found = timeline(
        [
            Queued("a", at[1], 7, arrived=at[0]),
            Scheduled("a", at[2], 1, 0, resumed=False),
            TokensOut("a", at[3], 2, [1]),
            TokensOut("a", at[4], 3, [1]),
            finished(at[5], 2),
        ]
    )
    assert found.queue_s is not None
    assert found.prefill_s is not None
    assert found.decode_s is not None
    parts = found.intake_s + found.queue_s + found.prefill_s + found.decode_s + gaps[4]
    assert parts == pytest.approx(found.e2e_s, abs=1e-9)
    assert found.longest_stall_s == found.decode_s
