"""Blocks to a chat's messages, and a chat's deltas to blocks and events; no server."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from penstock.errors import PenstockError
from penstock.server.messages import Assembly, chat_body, message_of
from penstock.server.tables import MESSAGES, parse

USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 3,
    "total_tokens": 8,
    "prompt_tokens_details": {"cached_tokens": 2},
}
HI = [{"role": "user", "content": "Hi"}]


def chat_of(**fields: Any) -> dict[str, Any]:
    data = {"messages": HI, "max_tokens": 5, **fields}
    return chat_body(parse(MESSAGES, msgspec.json.encode(data)))


def test_a_message_is_a_chat() -> None:
    chat = chat_of(system=[{"type": "text", "text": "Be brief."}], stop_sequences=["\n"], top_k=4)
    assert chat["messages"] == [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": "Hi"},
    ]
    assert (chat["max_completion_tokens"], chat["stop"], chat["top_k"]) == (5, ["\n"], 4)
    assert "continue_final_message" not in chat


def test_a_last_message_of_the_assistant_is_continued() -> None:
    chat = chat_of(messages=[*HI, {"role": "assistant", "content": "Well,"}])
    assert chat["continue_final_message"]


def test_calls_results_and_thinking() -> None:
    thinking = {"type": "thinking", "thinking": "hm", "signature": "s"}
    use = {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}}
    result = {
        "type": "tool_result",
        "tool_use_id": "t1",
        "content": [{"type": "text", "text": "1"}],
    }
    chat = chat_of(
        messages=[
            *HI,
            {"role": "assistant", "content": [thinking, use]},
            {"role": "user", "content": [result, {"type": "text", "text": "and?"}]},
        ],
        tools=[{"name": "f", "input_schema": {"type": "object"}, "description": "d"}],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
        thinking={"type": "enabled", "budget_tokens": 64},
    )
    roles = [m["role"] for m in chat["messages"]]
    assert roles == ["user", "assistant", "tool", "user"]
    call = chat["messages"][1]["tool_calls"][0]
    assert call["function"] == {"name": "f", "arguments": '{"a":1}'}
    assert chat["messages"][1]["reasoning_content"] == "hm"
    assert chat["tools"][0]["function"]["parameters"] == {"type": "object"}
    assert (chat["tool_choice"], chat["parallel_tool_calls"]) == ("required", False)
    assert chat["thinking_token_budget"] == 64
    named = chat_of(
        tools=[{"name": "f", "input_schema": {}}], tool_choice={"type": "tool", "name": "f"}
    )
    assert named["tool_choice"] == {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
            "messages[0].content[0]",
        ),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": 5}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": "x", "color": 1}]}, "messages[0].color"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[0]"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        (
            {"tools": [{"name": "f", "input_schema": {}}], "tool_choice": {"type": "x"}},
            "tool_choice",
        ),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
    ],
)
def test_what_cannot_be_said_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(PenstockError) as caught:
        chat_of(**fields)
    assert caught.value.param is not None
    assert caught.value.param.startswith(param)


def test_deltas_become_blocks_in_order_whatever_the_cut() -> None:
    made = Assembly(message_of("msg_1", "m"))
    events = made.begin(USAGE)
    assert events[0]["message"]["usage"]["input_tokens"] == 3
    assert events[0]["message"]["usage"]["cache_read_input_tokens"] == 2
    for delta in (
        {"role": "assistant", "content": ""},
        {"reasoning_content": "h"},
        {"reasoning_content": "m"},
        {"content": "It "},
        {"content": "is."},
        {"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "f", "arguments": '{"a"'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]},
        {"tool_calls": [{"index": 1, "id": "c2", "function": {"name": "g", "arguments": ""}}]},
    ):
        events += made.delta(delta)
    events += made.end("tool_calls", None, USAGE)
    assert made.message["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": ""},
        {"type": "text", "text": "It is."},
        {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}},
        {"type": "tool_use", "id": "c2", "name": "g", "input": {}},
    ]
    assert made.message["stop_reason"] == "tool_use"
    kinds = [event["type"].removeprefix("content_block_") for event in events]
    assert kinds == [
        "message_start",
        "start", "delta", "delta", "stop",
        "start", "delta", "delta", "stop",
        "start", "delta", "delta", "stop",
        "start", "stop",
        "message_delta", "message_stop",
    ]  # fmt: skip
    places = [e["index"] for e in events if e["type"].startswith("content_block")]
    assert places == sorted(places)


def test_how_it_ends() -> None:
    def ended(reason: str, stop: Any = None) -> tuple[Any, Any]:
        made = Assembly(message_of("msg_1", "m"))
        made.delta({"content": "x"})
        made.end(reason, stop, USAGE)
        return made.message["stop_reason"], made.message["stop_sequence"]

    assert ended("stop") == ("end_turn", None)
    assert ended("stop", 7) == ("end_turn", None)
    assert ended("stop", "\n") == ("stop_sequence", "\n")
    assert ended("length") == ("max_tokens", None)


def test_arguments_that_are_cut_off_are_shown_as_text() -> None:
    made = Assembly(message_of("msg_1", "m"))
    made.delta({"tool_calls": [{"id": "c", "function": {"name": "f", "arguments": '{"a": '}}]})
    made.end("length", None, USAGE)
    assert made.message["content"][0]["input"] == {"partial_json": '{"a": '}
