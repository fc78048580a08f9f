"""Anthropic's Messages API in terms of chats: blocks to messages, deltas to blocks and events."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from penstock.errors import UnsupportedFieldError
from penstock.server import kinds
from penstock.server.fields import Parsed
from penstock.server.over_chat import PASSED, Json, member, only, texts

NAMES = {
    "max_completion_tokens": "max_tokens",
    "stop": "stop_sequences",
    "thinking_token_budget": "thinking",
}
"""Fields of chats -> fields here."""

TEXT_PART = {"text": ("cache_control", "citations")}
STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "timeout": "max_tokens",
}
CHOICES: dict[str, Any] = {"auto": "auto", "any": "required", "none": "none"}


def chat_body(body: Parsed) -> Json:
    """The chat that a checked body stands for. Raises InvalidFieldError, UnsupportedFieldError."""
    values = body.values
    chat: Json = {name: values.get(name) for name in PASSED}
    messages: list[Json] = []
    if values["system"]:
        messages.append({"role": "system", "content": texts(values["system"], TEXT_PART, "system")})
    for i, message in enumerate(values["messages"]):
        messages += _messages(message, f"messages[{i}]")
    chat["messages"] = messages
    chat["max_completion_tokens"] = values.get("max_tokens")
    chat["stop"] = values.get("stop_sequences") or None
    if messages and messages[-1]["role"] == "assistant" and "tool_calls" not in messages[-1]:
        chat["continue_final_message"] = True  # the answer begins as the client wrote
    if values["thinking"]:
        chat["thinking_token_budget"] = _budget(values["thinking"])
    if values["tools"]:
        chat["tools"] = [_tool(tool, f"tools[{i}]") for i, tool in enumerate(values["tools"])]
        chat |= _choice(values["tool_choice"] or {"type": "auto"})
    return chat


def _messages(message: Json, where: str) -> list[Json]:
    """A turn as messages of a chat: results of tools are messages of their own."""
    only(message, ("role", "content"), where)
    role = member(message, "role", kinds.TEXT, where)
    if role not in ("user", "assistant", "system"):
        raise kinds.wrong(f"{where}.role", "user or assistant", role)
    content = member(message, "content", kinds.TEXT_OR_OBJECTS, where)
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    read, results = _assistant if role == "assistant" else _other, []
    turn: Json = {"role": role, "content": []}
    for i, block in enumerate(content):
        results += read(turn, block, f"{where}.content[{i}]")
    if not turn["content"]:
        del turn["content"]
    return results + ([turn] if len(turn) > 1 else [])


def _other(turn: Json, block: Json, where: str) -> list[Json]:
    """Put a user's block into the turn; results of tools come back."""
    if block.get("type") != "tool_result":
        turn["content"] += texts([block], TEXT_PART, where)
        return []
    only(block, ("type", "tool_use_id", "content", "is_error", "cache_control"), where)
    id = member(block, "tool_use_id", kinds.TEXT, where)
    content = texts(block.get("content") or "", TEXT_PART, f"{where}.content")
    return [{"role": "tool", "tool_call_id": id, "content": content}]


def _assistant(turn: Json, block: Json, where: str) -> list[Json]:
    kind = block.get("type")
    if kind == "tool_use":
        only(block, ("type", "id", "name", "input", "cache_control", "caller"), where)
        id, name = (member(block, n, kinds.TEXT, where) for n in ("id", "name"))
        given = member(block, "input", kinds.OBJECT, where)
        function = {"name": name, "arguments": msgspec.json.encode(given).decode()}
        call = {"id": id, "type": "function", "function": function}
        turn["tool_calls"] = [*turn.get("tool_calls", []), call]
    elif kind == "thinking":
        only(block, ("type", "thinking", "signature"), where)
        turn["reasoning_content"] = member(block, "thinking", kinds.TEXT, where)
    else:
        turn["content"] += texts([block], TEXT_PART, where)
    return []


def _budget(thinking: Json) -> int | None:
    only(thinking, ("type", "budget_tokens", "display"), "thinking")
    kind = member(thinking, "type", kinds.TEXT, "thinking")
    if kind not in ("enabled", "disabled", "adaptive"):
        raise kinds.wrong("thinking.type", "enabled or disabled", kind)
    if kind != "enabled":
        return None
    budget: int = member(thinking, "budget_tokens", kinds.COUNT, "thinking")
    return budget


def _tool(tool: Json, where: str) -> Json:
    if tool.get("type") not in (None, "custom"):
        raise UnsupportedFieldError(
            f"{where}: tools of type {str(tool['type'])[:60]!r} are not served here.", param=where
        )
    only(tool, ("type", "name", "description", "input_schema", "cache_control", "strict"), where)
    function = {"name": member(tool, "name", kinds.TEXT, where)}
    function["parameters"] = member(tool, "input_schema", kinds.OBJECT, where)
    for name in ("description", "strict"):
        if tool.get(name) is not None:
            function[name] = tool[name]
    return {"type": "function", "function": function}


def _choice(choice: Json) -> Json:
    only(choice, ("type", "name", "disable_parallel_tool_use"), "tool_choice")
    kind = member(choice, "type", kinds.TEXT, "tool_choice")
    if kind == "tool":
        name = member(choice, "name", kinds.TEXT, "tool_choice")
        chosen: Any = {"type": "function", "function": {"name": name}}
    elif kind in CHOICES:
        chosen = CHOICES[kind]
    else:
        raise kinds.wrong("tool_choice.type", f"one of {', '.join(CHOICES)}, tool", kind)
    return {
        "tool_choice": chosen,
        "parallel_tool_calls": not choice.get("disable_parallel_tool_use"),
    }


# The answer


@dataclass(slots=True)
class Assembly:
    """A message that grows by a chat's deltas; each change is an event for a stream."""

    message: Json
    _open: bool = False
    """whether the last block still grows"""
    _arguments: str = ""
    """of the tool's block that grows, as text"""
    _calls: dict[int, int] = field(default_factory=dict)
    """index of the chat's call -> index of the block"""

    def begin(self, usage: Json) -> list[Json]:
        self.message["usage"] = usage_json(usage) | {"output_tokens": 0}
        return [{"type": "message_start", "message": {**self.message, "content": []}}]

    def delta(self, delta: Mapping[str, Any]) -> list[Json]:
        """Take in a chat's delta, or its whole message."""
        events: list[Json] = []
        reasoning = delta.get("reasoning_content") or delta.get("reasoning")
        if reasoning:
            events += self._text("thinking", reasoning, {"signature": ""})
        if delta.get("content"):
            events += self._text("text", delta["content"], {})
        for place, call in enumerate(delta.get("tool_calls") or ()):
            events += self._call(call.get("index", place), call)
        return events

    def end(self, finish_reason: str | None, stop: Any, usage: Json) -> list[Json]:
        """The last delta came. stop: the chat's `stop_reason`."""
        events = self._close()
        reason = STOP_REASONS.get(finish_reason or "", "end_turn")
        sequence = stop if isinstance(stop, str) else None
        ending = {"stop_reason": reason, "stop_sequence": sequence}
        if sequence is not None:
            ending["stop_reason"] = "stop_sequence"
        self.message |= {**ending, "usage": usage_json(usage)}
        events.append({"type": "message_delta", "delta": ending, "usage": self.message["usage"]})
        return [*events, {"type": "message_stop"}]

    def _start(self, block: Json) -> list[Json]:
        events = self._close()
        self.message["content"].append(block)
        self._open = True
        start = {"type": "content_block_start", "index": self._last, "content_block": dict(block)}
        return [*events, start]

    @property
    def _last(self) -> int:
        return len(self.message["content"]) - 1

    def _text(self, kind: str, text: str, more: Json) -> list[Json]:
        blocks, events = self.message["content"], []
        if not self._open or blocks[-1]["type"] != kind:
            events = self._start({"type": kind, kind: "", **more})
        blocks[-1][kind] += text
        return [*events, self._change({"type": f"{kind}_delta", kind: text})]

    def _change(self, delta: Json) -> Json:
        return {"type": "content_block_delta", "index": self._last, "delta": delta}

    def _call(self, index: int, call: Json) -> list[Json]:
        function, events = call.get("function") or {}, []
        if index not in self._calls:
            id = call.get("id") or f"toolu_{secrets.token_hex(12)}"
            name = function.get("name") or ""
            events = self._start({"type": "tool_use", "id": id, "name": name, "input": {}})
            self._calls[index] = self._last
        if arguments := function.get("arguments"):
            self._arguments += arguments
            events.append(self._change({"type": "input_json_delta", "partial_json": arguments}))
        return events

    def _close(self) -> list[Json]:
        if not self._open:
            return []
        self._open = False
        block = self.message["content"][-1]
        if block["type"] == "tool_use" and self._arguments:
            try:
                block["input"] = msgspec.json.decode(self._arguments, type=dict)
            except msgspec.DecodeError:  # cut off in the middle: what there is, as text
                block["input"] = {"partial_json": self._arguments}
            self._arguments = ""
        return [{"type": "content_block_stop", "index": self._last}]


def message_of(id: str, model: str) -> Json:
    """A message before its first token."""
    return {
        "id": id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": None,
    }


def usage_json(usage: Json) -> Json:
    """A chat's usage under Anthropic's names, which count cached tokens apart."""
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    return {
        "input_tokens": usage["prompt_tokens"] - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": usage["completion_tokens"],
    }
