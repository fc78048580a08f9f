from __future__ import annotations

import pytest

from penstock.core.admission import check_output, token_limit
from penstock.core.request import Request
from penstock.errors import ContextLengthError, InvalidFieldError
from tests.fakes import submission


def test_the_limit_counts_prompt_and_output() -> None:
    assert token_limit(submission("a", [1] * 4, max_tokens=6), context=100, room=100) == 10
    assert token_limit(submission("a", [1] * 4, max_tokens=None), context=20, room=100) == 20
    assert token_limit(submission("a", [1] * 4, max_tokens=None), context=20, room=9) == 10


@pytest.mark.parametrize(
    ("prompt", "wanted", "context", "room", "param"),
    [(10, 1, 10, 99, "prompt"), (5, 9, 10, 99, "max_tokens"), (5, 5, 99, 8, "max_tokens")],
)
def test_what_can_never_run_is_refused(
    prompt: int, wanted: int, context: int, room: int, param: str
) -> None:
    with pytest.raises(ContextLengthError) as caught:
        token_limit(submission("a", [1] * prompt, max_tokens=wanted), context, room)
    assert caught.value.param == param


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(InvalidFieldError):
        token_limit(submission("a", []), 10, 10)


def test_output_that_is_complete_is_refused() -> None:
    done = submission("a", [1], max_tokens=2, stop_ids=(7,), output=[3, 4])
    with pytest.raises(InvalidFieldError, match="complete"):
        check_output(Request(done, 1, limit=3))
    with pytest.raises(InvalidFieldError, match="complete"):
        check_output(Request(submission("a", [1], stop_ids=(7,), output=[7]), 1, limit=9))
    check_output(Request(submission("a", [1], stop_ids=(7,), output=[3]), 1, limit=9))
