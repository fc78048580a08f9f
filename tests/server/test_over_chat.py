from __future__ import annotations

import pytest

from penstock.errors import InvalidFieldError, UnsupportedFieldError
from penstock.server import kinds
from penstock.server.over_chat import member, only, parsed_chat, renamed, texts


def test_errors_name_the_other_protocols_field() -> None:
    with pytest.raises(InvalidFieldError) as caught, renamed({"messages": "input"}):
        raise InvalidFieldError("no", param="messages[3].content")
    assert caught.value.param == "input[3].content"
    with pytest.raises(InvalidFieldError) as plain, renamed({"messages": "input"}):
        raise InvalidFieldError("no", param="top_p")
    assert plain.value.param == "top_p"
    with pytest.raises(InvalidFieldError) as asked:
        parsed_chat({"messages": []}, {"messages": "input"})
    assert asked.value.param == "input"


def test_members_are_there_and_known() -> None:
    assert member({"a": "x"}, "a", kinds.TEXT, "tool") == "x"
    with pytest.raises(InvalidFieldError, match=r"tool\.a is missing"):
        member({"a": None}, "a", kinds.TEXT, "tool")
    only({"a": 1, "b": None}, ("a",), "tool")
    with pytest.raises(UnsupportedFieldError) as caught:
        only({"c": 1}, ("a",), "tool")
    assert caught.value.param == "tool.c"


def test_texts_are_read_and_other_parts_refused() -> None:
    parts = {"input_text": ("extra",)}
    assert texts("x", parts, "w") == "x"
    given = [{"type": "input_text", "text": "x", "extra": 1}]
    assert texts(given, parts, "w") == [{"type": "text", "text": "x"}]
    for bad in (5, [5], [{"type": "input_text"}], [{"text": "x"}]):
        with pytest.raises(InvalidFieldError):
            texts(bad, parts, "w")
    with pytest.raises(UnsupportedFieldError):
        texts([{"type": "image"}], parts, "w")
