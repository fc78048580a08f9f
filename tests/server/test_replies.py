from __future__ import annotations

import math
from typing import Any

from penstock.llm import Logprob, TextDelta, Usage
from penstock.server.replies import FLOOR, Chat, Chunks, Completions, Prompt, usage_json
from penstock.text.outputs import CompletionOutput
from penstock.text.pieces import Answer, CallArguments, CallBegin, Content, Reasoning, ToolCall

PROMPT = Prompt("Once", [5], None, False, "Once")


def delta(text: str = "wood", logprob: float = -1.0) -> TextDelta:
    entry = {7: Logprob(logprob, 2, "wo", b"wo"), 8: Logprob(-0.5, 1, "\ufffd", b"\xf0")}
    return TextDelta(0, text, [7], [entry], pieces=[Content(text)])


def only(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    (chunk,) = chunks
    return chunk


def test_the_bytes_of_a_stream() -> None:
    """Golden: clients in the field parse exactly this."""
    chat, chunks = Chat(None, False), Chunks({"id": "c-1", "created": 3}, include_usage=False)
    opening = chat.opening(0, PROMPT)
    assert opening is not None
    assert chunks.frame(opening) == (
        b'data: {"id":"c-1","created":3,"choices":[{"index":0,'
        b'"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}\n\n'
    )
    assert chunks.frame(
        only(chat.chunks(0, TextDelta(0, "a\n", [7], pieces=[Content("a\n")])))
    ) == (
        b'data: {"id":"c-1","created":3,"choices":[{"index":0,"delta":{"content":"a\\n"},'
        b'"logprobs":null,"finish_reason":null,"stop_reason":null}]}\n\n'
    )
    last = TextDelta(0, "", [7], finish_reason="stop", stop_reason="x")
    assert chunks.frame(only(chat.chunks(0, last))).endswith(
        b'"delta":{},"logprobs":null,"finish_reason":"stop","stop_reason":"x"}]}\n\n'
    )
    text = Completions(None, False, echo=False)
    assert text.opening(0, PROMPT) is None
    assert b'[{"index":2,"text":"b",' in chunks.frame(only(text.chunks(2, TextDelta(0, "b", [7]))))


def test_usage_in_chunks() -> None:
    chunks = Chunks({"id": "c"}, include_usage=True)
    usage = usage_json([Usage(3, 2, 1), Usage(4, 5, 0)])
    assert usage == {
        "prompt_tokens": 7,
        "completion_tokens": 7,
        "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 1},
    }
    assert chunks.frame({}) == b'data: {"id":"c","choices":[{}],"usage":null}\n\n'
    assert chunks.last(usage).startswith(b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":7')
    with_top = chunks.frame({}, usage, {"prompt_token_ids": [5]})
    assert b'"choices":[{}],"prompt_token_ids":[5],"usage":{' in with_top


def test_minus_infinity_has_a_number() -> None:
    """JSON has none: a masked token would otherwise make a reply that no client can read."""
    found = only(Chat(2, False).chunks(0, delta(logprob=-math.inf)))["logprobs"]["content"][0]
    assert found["logprob"] == FLOOR
    assert [top["logprob"] for top in found["top_logprobs"]] == [-0.5, FLOOR]
    legacy = only(Completions(2, False, echo=False).chunks(0, delta(logprob=-math.inf)))["logprobs"]
    assert legacy["token_logprobs"] == [FLOOR]


def test_bytes_of_half_a_character() -> None:
    found = only(Chat(1, False).chunks(0, delta()))["logprobs"]["content"][0]
    assert (found["token"], found["bytes"]) == ("wo", [0x77, 0x6F])
    assert found["top_logprobs"] == [{"token": "\ufffd", "logprob": -0.5, "bytes": [0xF0]}]


def test_offsets_go_on_from_chunk_to_chunk() -> None:
    reply = Completions(1, False, echo=False)
    shown = [only(reply.chunks(i, delta()))["logprobs"]["text_offset"] for i in (0, 0, 1)]
    assert shown == [[0], [2], [0]]


def test_a_delta_of_several_pieces() -> None:
    """One chunk each; what belongs to the tokens stands with the last."""
    said = TextDelta(
        0,
        "",
        [7, 8],
        finish_reason="tool_calls",
        pieces=[Reasoning("Hm"), Content("a"), CallBegin(0, "call_1", "f"), CallArguments(0, "{}")],
    )
    chunks = Chat(None, True).chunks(0, said)
    assert [chunk["delta"] for chunk in chunks] == [
        {"reasoning_content": "Hm", "reasoning": "Hm"},
        {"content": "a"},
        {
            "tool_calls": [
                {
                    "index": 0,
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "f", "arguments": ""},
                }
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]},
    ]
    assert [chunk["finish_reason"] for chunk in chunks] == [None, None, None, "tool_calls"]
    assert [chunk.get("token_ids") for chunk in chunks] == [None, None, None, [7, 8]]
    without = Chat(None, False, include_reasoning=False).chunks(0, said)
    assert "reasoning" not in without[0]["delta"]


def test_a_whole_answer_with_calls() -> None:
    answer = Answer("", "Hm", [ToolCall("call_1", "f", "{}")])
    output = CompletionOutput(0, "raw", [7], None, None, "tool_calls", None, answer)
    message = Chat(None, False).choice(0, output, PROMPT)["message"]
    assert message["content"] is None
    assert message["reasoning_content"] == message["reasoning"] == "Hm"
    assert message["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}
    message = Chat(None, False, include_reasoning=False).choice(0, output, PROMPT)["message"]
    assert "reasoning" not in message
