from __future__ import annotations

from typing import Any

import pytest

from penstock.errors import InvalidFieldError
from penstock.server import kinds
from penstock.server.kinds import Kind

GOOD: list[tuple[Kind, Any, Any]] = [
    (kinds.BOOL, True, True),
    (kinds.COUNT, 0, 0),
    (kinds.TEXT, "", ""),
    (kinds.SALT, "s", "s"),
    (kinds.OBJECT, {}, {}),
    (kinds.SECONDS, 3, 3),
    (kinds.SECONDS, 0.5, 0.5),
    (kinds.TOKENS, [0, 5], [0, 5]),
    (kinds.REQUEST_ID, "a-1/b:2", "a-1/b:2"),
    (kinds.PROMPT, "a", ["a"]),
    (kinds.PROMPT, "", [""]),
    (kinds.PROMPT, ["a", "b"], ["a", "b"]),
    (kinds.PROMPT, [1, 2], [[1, 2]]),
    (kinds.PROMPT, [[1], [2, 3]], [[1], [2, 3]]),
    (
        kinds.STREAM_OPTIONS,
        {"include_usage": True, "include_obfuscation": False, "continuous_usage_stats": None},
        {"include_usage": True, "continuous_usage_stats": False},
    ),
    (kinds.MESSAGES, [{"role": "user"}], [{"role": "user"}]),
]
BAD: list[tuple[Kind, Any]] = [
    (kinds.BOOL, 1),
    (kinds.BOOL, "true"),
    (kinds.COUNT, -1),
    (kinds.COUNT, True),
    (kinds.COUNT, 1.0),
    (kinds.COUNT, 10**30),
    (kinds.TEXT, 1),
    (kinds.SALT, ""),
    (kinds.OBJECT, []),
    (kinds.SECONDS, 0),
    (kinds.SECONDS, -1.5),
    (kinds.SECONDS, 10**400),
    (kinds.SECONDS, "1"),
    (kinds.SECONDS, True),
    (kinds.SECONDS, float("nan")),
    (kinds.TOKENS, [1, -1]),
    (kinds.TOKENS, [1, "2"]),
    (kinds.TOKENS, [1, 2**40]),
    (kinds.TOKENS, {"0": 1}),
    (kinds.REQUEST_ID, ""),
    (kinds.REQUEST_ID, "two words"),
    (kinds.REQUEST_ID, "line\nbreak"),
    (kinds.REQUEST_ID, "ö"),
    (kinds.REQUEST_ID, "x" * 129),
    (kinds.PROMPT, []),
    (kinds.PROMPT, {}),
    (kinds.PROMPT, 3),
    (kinds.PROMPT, ["a", 1]),
    (kinds.PROMPT, [1, "a"]),
    (kinds.PROMPT, [[1], "a"]),
    (kinds.PROMPT, [None]),
    (kinds.STREAM_OPTIONS, True),
    (kinds.STREAM_OPTIONS, {"include_usage": 1}),
    (kinds.STREAM_OPTIONS, {"include_usages": True}),
    (kinds.MESSAGES, []),
    (kinds.MESSAGES, {"role": "user"}),
    (kinds.MESSAGES, ["hi"]),
]


@pytest.mark.parametrize(("kind", "value", "expected"), GOOD)
def test_accepted(kind: Kind, value: Any, expected: Any) -> None:
    assert kind.read(value, "field") == expected


@pytest.mark.parametrize(("kind", "value"), BAD)
def test_refused_by_name(kind: Kind, value: Any) -> None:
    with pytest.raises(InvalidFieldError, match=r"^field") as caught:
        kind.read(value, "field")
    assert str(caught.value.param).startswith("field")
    assert len(str(caught.value)) < 250


def test_the_place_in_a_list_is_named() -> None:
    with pytest.raises(InvalidFieldError, match=r"prompt\[1\]\[0\] must be a token id; it is -3"):
        kinds.PROMPT.read([[1], [-3]], "prompt")
