from __future__ import annotations

import pytest

from penstock.core.admission import most_tokens
from penstock.core.limits import Limits
from penstock.core.request import Adapter
from penstock.errors import ContextLengthError, InvalidFieldError
from tests.fakes import submission

LIMITS = Limits(4, 16, 20)


@pytest.mark.parametrize(("wanted", "room", "limit"), [(5, 99, 9), (None, 99, 20), (None, 9, 10)])
def test_the_least_of_what_is_asked_and_what_there_is(
    wanted: int | None, room: int, limit: int
) -> None:
    assert most_tokens(submission("1", [1] * 4, wanted), LIMITS, room) == limit


@pytest.mark.parametrize(
    ("prompt", "wanted", "room", "error", "param"),
    [
        (0, 1, 99, InvalidFieldError, "prompt"),
        (20, None, 99, ContextLengthError, "prompt"),
        (10, 11, 99, ContextLengthError, "max_tokens"),
        (10, 8, 10, ContextLengthError, "max_tokens"),
    ],
)
def test_what_can_never_run(
    prompt: int, wanted: int | None, room: int, error: type[Exception], param: str
) -> None:
    with pytest.raises(error) as found:
        most_tokens(submission("1", [1] * prompt, wanted), LIMITS, room)
    assert found.value.param == param  # type: ignore[attr-defined]


@pytest.mark.parametrize("output", [[7, 8, 9], [2]])
def test_output_that_is_complete(output: list[int]) -> None:
    with pytest.raises(InvalidFieldError, match="complete"):
        most_tokens(submission("1", [1], 3, output=output, stop_ids=(2,)), LIMITS, 99)


def test_an_adapter_needs_slots() -> None:
    asked = submission("1", [1], adapter=Adapter("a", "/a", "digest"))
    with pytest.raises(InvalidFieldError, match="no slots"):
        most_tokens(asked, LIMITS, 99)
    assert most_tokens(asked, Limits(4, 16, 20, max_adapters=1), 99) == 9
