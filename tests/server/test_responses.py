"""Items to messages, and a chat's deltas to items and events; no server."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from penstock.errors import PenstockError
from penstock.server.responses import Assembly, chat_body, input_items, messages_of, response_of
from penstock.server.tables import RESPONSES, parse

USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 3,
    "total_tokens": 8,
    "prompt_tokens_details": {"cached_tokens": 2},
}


def chat_of(**fields: Any) -> dict[str, Any]:
    body = parse(RESPONSES, msgspec.json.encode(fields))
    return chat_body(body, input_items(body["input"]))


def assembly() -> Assembly:
    body = parse(RESPONSES, b'{"input": "Hi"}')
    return Assembly(response_of(body, "resp_1", "m", 7, store=False))


def test_a_text_is_a_users_message() -> None:
    chat = chat_of(input="Hi", instructions="Be brief.", max_output_tokens=9, temperature=0.5)
    assert chat["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
    ]
    assert (chat["max_completion_tokens"], chat["temperature"]) == (9, 0.5)
    assert "tools" not in chat


def test_a_turn_with_reasoning_calls_and_results() -> None:
    items = [
        {"role": "developer", "content": "d"},
        {"role": "user", "content": [{"type": "input_text", "text": "q"}]},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "1"},
        {"type": "function_call_output", "call_id": "c2", "output": "2"},
        {"role": "assistant", "content": "done"},
        {"role": "assistant", "content": "really"},
    ]
    messages = messages_of(input_items(items))
    assert [m["role"] for m in messages] == [
        "system", "user", "assistant", "tool", "tool", "assistant", "assistant",
    ]  # fmt: skip
    assert messages[2]["reasoning_content"] == "hm"
    assert [call["id"] for call in messages[2]["tool_calls"]] == ["c1", "c2"]
    assert messages[3] == {"role": "tool", "tool_call_id": "c1", "content": "1"}


def test_tools_and_formats_have_the_names_of_chats() -> None:
    schema = {"type": "json_schema", "name": "n", "schema": {}, "strict": True}
    chat = chat_of(
        input="Hi",
        text={"format": schema},
        tools=[{"type": "function", "name": "f", "parameters": {}}],
        tool_choice={"type": "function", "name": "f"},
        reasoning={"effort": "low"},
    )
    assert chat["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": {}, "strict": True},
    }
    assert chat["tools"] == [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    assert chat["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert chat["reasoning_effort"] == "low"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": [{"role": "user", "content": 5}]}, "input[0].content"),
        ({"input": [{"role": "king", "content": "x"}]}, "input[0].role"),
        ({"input": [{"content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content"),
        ({"input": [{"type": "web_search_call"}]}, "input[0]"),
        ({"input": [{"type": 5}]}, "input[0].type"),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input[0].call_id"),
        ({"input": [{"role": "user", "content": "x", "color": 1}]}, "input[0].color"),
        ({"input": "x", "text": {"verbosity": "high"}}, "text"),
        ({"input": "x", "text": {"form": 1}}, "text.form"),
        ({"input": "x", "reasoning": {"summary": "auto"}}, "reasoning.summary"),
        ({"input": "x", "tools": [{"type": "web_search"}]}, "tools[0]"),
    ],
)
def test_what_cannot_be_said_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(PenstockError) as caught:
        chat_of(**fields)
    assert caught.value.param is not None
    assert caught.value.param.startswith(param)


def test_deltas_become_items_in_order_whatever_the_cut() -> None:
    text = assembly()
    events = text.begin()
    for delta in (
        {"role": "assistant", "content": ""},
        {"reasoning_content": "hm"},
        {"reasoning_content": "m"},
        {"content": "It "},
        {"content": "is."},
        {"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]},
        {"tool_calls": [{"index": 1, "id": "c2", "function": {"name": "g", "arguments": "{}"}}]},
    ):
        events += text.delta(delta)
    events += text.end("tool_calls", USAGE, 9)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[0]["type"] == "response.created"
    assert events[-1]["type"] == "response.completed"
    at_once = assembly()
    calls = [
        {"id": "c1", "function": {"name": "f", "arguments": '{"a": 1}'}},
        {"id": "c2", "function": {"name": "g", "arguments": "{}"}},
    ]
    at_once.delta({"reasoning_content": "hmm", "content": "It is.", "tool_calls": calls})
    at_once.end("tool_calls", USAGE, 9)

    def bare(made: Assembly) -> list[Any]:
        return [{k: v for k, v in item.items() if k != "id"} for item in made.response["output"]]

    assert bare(text) == bare(at_once)
    assert [item["type"] for item in bare(text)] == [
        "reasoning", "message", "function_call", "function_call",
    ]  # fmt: skip
    assert bare(text)[2]["arguments"] == '{"a": 1}'
    assert text.response["usage"]["input_tokens_details"] == {"cached_tokens": 2}
    for kind in ("added", "done"):
        places = [e["output_index"] for e in events if e["type"] == f"response.output_item.{kind}"]
        assert places == [0, 1, 2, 3]


def test_an_answer_that_is_cut_or_empty() -> None:
    cut = assembly()
    cut.delta({"content": "It"})
    assert cut.end("length", USAGE, 9)[-1]["type"] == "response.incomplete"
    assert cut.response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert cut.response["output"][0]["status"] == "incomplete"
    empty = assembly()
    empty.end("stop", USAGE, 9)
    assert empty.response["output"][0]["content"][0]["text"] == ""
    assert assembly().failed("draining", "gone")["response"]["error"]["code"] == "draining"
