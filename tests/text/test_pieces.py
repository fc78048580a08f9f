from __future__ import annotations

from penstock.text.pieces import (
    Answer,
    CallArguments,
    CallBegin,
    Content,
    Reasoning,
    ToolCall,
    merged,
)

PIECES = [
    Reasoning("Hm"),
    Reasoning("m."),
    Content(""),
    Content("Let me "),
    Content("see."),
    CallBegin(0, "call_a", "look"),
    CallArguments(0, '{"a"'),
    CallArguments(0, ": 1}"),
    CallBegin(1, "call_b", "wait"),
    CallArguments(1, "{}"),
]


def test_an_answer_adds_them_up() -> None:
    answer = Answer()
    answer.add(PIECES[:6])
    answer.add(PIECES[6:])
    calls = [ToolCall("call_a", "look", '{"a": 1}'), ToolCall("call_b", "wait", "{}")]
    assert answer == Answer("Let me see.", "Hmm.", calls)


def test_merged_pieces_say_the_same() -> None:
    joined = merged(PIECES)
    assert joined == [
        Reasoning("Hmm."),
        Content("Let me see."),
        CallBegin(0, "call_a", "look"),
        CallArguments(0, '{"a": 1}'),
        CallBegin(1, "call_b", "wait"),
        CallArguments(1, "{}"),
    ]
