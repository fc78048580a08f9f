"""gpt-oss's messages; `test_parser` cuts them in all ways."""

from __future__ import annotations

from penstock.text.pieces import CallArguments, CallBegin, Content, Reasoning
from penstock.text.toolcalls.harmony import HarmonyParser


def test_pieces_come_as_soon_as_they_are_certain() -> None:
    parser = HarmonyParser(lambda: "call_1")
    assert parser.feed("<|channel|>analysis") == []
    assert parser.feed("<|message|>Hm") == [Reasoning("Hm")]
    assert parser.feed("m.<|end|><|start|>assistant<|channel|>commentary to=functions.f") == [
        Reasoning("m.")
    ]
    assert parser.feed(" <|constrain|>json<|message|>") == [CallBegin(0, "call_1", "f")]
    assert parser.feed('{"a"') == [CallArguments(0, '{"a"')]
    assert parser.feed(": 1}<|call|>") == [CallArguments(0, ": 1}")]
    assert parser.end() == []


def test_a_header_that_breaks_off_is_content() -> None:
    parser = HarmonyParser(lambda: "")
    assert parser.feed("<|channel|>final") == []
    assert parser.end() == [Content("<|channel|>final")]


def test_text_without_headers() -> None:
    parser = HarmonyParser(lambda: "")
    assert parser.feed("a < b ") == [Content("a < b ")]
    assert parser.feed("<") == []
    assert parser.end() == [Content("<")]
