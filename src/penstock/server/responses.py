"""OpenAI's Responses API in terms of chats: items to messages, a chat's deltas to items and events.

An answer is assembled from a chat's deltas in one way, whether it is streamed or not.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.errors import UnsupportedFieldError
from penstock.server import kinds
from penstock.server.fields import Parsed
from penstock.server.over_chat import PASSED, Json, member, only, text_part, texts

NAMES = {
    "messages": "input",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text",
    "reasoning_effort": "reasoning",
}
"""Fields of chats -> fields here."""

PARTS = {
    "input_text": (),
    "output_text": ("annotations", "logprobs"),
    "text": (),
}
ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}


def chat_body(body: Parsed, items: list[Json]) -> Json:
    """The chat that a checked body stands for. items: the conversation, this turn's input last.

    Raises InvalidFieldError and UnsupportedFieldError.
    """
    chat: Json = {name: body.values.get(name) for name in PASSED}
    chat |= {n: body.logged[n] for n in ("user", "prompt_cache_key") if n in body.logged}
    messages = messages_of(items)
    if body["instructions"] is not None:
        messages.insert(0, {"role": "system", "content": body["instructions"]})
    chat["messages"] = messages
    chat["max_completion_tokens"] = body["max_output_tokens"]
    chat["response_format"] = _format(body["text"] or {})
    if body["reasoning"]:
        only(body["reasoning"], ("effort",), "reasoning")
        chat["reasoning_effort"] = body["reasoning"].get("effort")
    if body["tools"]:
        chat["tools"] = [_tool(tool, f"tools[{i}]") for i, tool in enumerate(body["tools"])]
        chat["tool_choice"] = _choice(body["tool_choice"])
        chat["parallel_tool_calls"] = body["parallel_tool_calls"]
    return chat


def input_items(given: str | list[Json]) -> list[Json]:
    """The input as items with ids."""
    if isinstance(given, str):
        given = [{"type": "message", "role": "user", "content": given}]
    items = []
    for item in given:
        kind = item.get("type") or "message"
        content = item.get("content")
        if kind == "message" and isinstance(content, str):
            part = "output_text" if item.get("role") == "assistant" else "input_text"
            item = {**item, "content": [{"type": part, "text": content}]}
        items.append({"id": f"msg_{secrets.token_hex(12)}", **item, "type": kind})
    return items


def messages_of(items: list[Json]) -> list[Json]:
    """Items as the messages of a chat: calls and reasoning join the assistant's message."""
    messages: list[Json] = []
    turn: Json | None = None
    """the assistant's message that is being put together"""
    for i, item in enumerate(items):
        where = f"input[{i}]"
        kind = kinds.TEXT.read(item["type"], f"{where}.type")
        role = item.get("role")
        if kind in ("reasoning", "function_call") or (kind, role) == ("message", "assistant"):
            if turn is None or (kind == "message" and "content" in turn):
                turn = {"role": "assistant"}
                messages.append(turn)
            _join(turn, item, kind, where)
            continue
        turn = None
        if kind == "message":
            messages.append(_message(item, where))
        elif kind == "function_call_output":
            only(item, ("type", "id", "call_id", "output", "status"), where)
            output = texts(member(item, "output", kinds.ANY, where), PARTS, f"{where}.output")
            call_id = member(item, "call_id", kinds.TEXT, where)
            messages.append({"role": "tool", "tool_call_id": call_id, "content": output})
        else:
            raise UnsupportedFieldError(
                f"{where}: items of type {kind[:60]!r} are not supported here.", param=where
            )
    return messages


def _message(item: Json, where: str) -> Json:
    only(item, ("type", "id", "role", "content", "status", "phase"), where)
    role = member(item, "role", kinds.TEXT, where)
    if role not in ROLES:
        raise kinds.wrong(f"{where}.role", f"one of {', '.join(ROLES)}", role)
    content = texts(member(item, "content", kinds.ANY, where), PARTS, f"{where}.content")
    return {"role": ROLES[role], "content": content}


def _join(turn: Json, item: Json, kind: str, where: str) -> None:
    """Put an item into the assistant's message."""
    if kind == "message":
        turn |= _message(item, where)
    elif kind == "reasoning":
        known = ("type", "id", "summary", "content", "status", "encrypted_content")
        only(item, known, where)
        parts = kinds.OBJECTS.read(item.get("content") or [], f"{where}.content")
        told = {"reasoning_text": ()}
        found = [text_part(p, told, f"{where}.content[{i}]") for i, p in enumerate(parts)]
        turn["reasoning_content"] = "".join(part["text"] for part in found)
    else:
        only(item, ("type", "id", "call_id", "name", "arguments", "status"), where)
        names = ("call_id", "name", "arguments")
        call_id, name, arguments = (member(item, n, kinds.TEXT, where) for n in names)
        function = {"name": name, "arguments": arguments}
        call = {"id": call_id, "type": "function", "function": function}
        turn["tool_calls"] = [*turn.get("tool_calls", []), call]


def _format(text: Json) -> Json | None:
    only(text, ("format", "verbosity"), "text")
    if text.get("verbosity") not in (None, "medium"):
        raise UnsupportedFieldError("text.verbosity is not supported here.", param="text")
    form = kinds.OBJECT.read(text.get("format") or {"type": "text"}, "text.format")
    if form.get("type") != "json_schema":
        return dict(form)
    rest = {name: value for name, value in form.items() if name != "type"}
    return {"type": "json_schema", "json_schema": rest}


def _tool(tool: Json, where: str) -> Json:
    kind = member(tool, "type", kinds.TEXT, where)
    if kind != "function":
        raise UnsupportedFieldError(
            f"{where}: tools of type {kind[:60]!r} are not served here; functions are.", param=where
        )
    function = {name: value for name, value in tool.items() if name != "type"}
    return {"type": "function", "function": function}


def _choice(choice: Any) -> Any:
    if isinstance(choice, dict) and choice.get("type") == "function":
        return {"type": "function", "function": {"name": choice.get("name")}}
    return choice


# The answer


@dataclass(slots=True)
class Assembly:
    """A response that grows by a chat's deltas; each change is an event for a stream."""

    response: Json
    _open: Json | None = None
    """the item that grows"""
    _calls: dict[int, Json] = field(default_factory=dict)
    """function calls by the chat's index"""
    _sequence: int = 0

    def begin(self) -> list[Json]:
        kinds_ = ("response.created", "response.in_progress")
        return [self._event(kind, response=self.shown()) for kind in kinds_]

    def delta(self, delta: Mapping[str, Any]) -> list[Json]:
        """Take in a chat's delta, or its whole message."""
        events: list[Json] = []
        reasoning = delta.get("reasoning_content") or delta.get("reasoning")
        if reasoning:
            events += self._text("reasoning", reasoning)
        if delta.get("content"):
            events += self._text("message", delta["content"])
        for place, call in enumerate(delta.get("tool_calls") or ()):
            events += self._call(call.get("index", place), call)
        return events

    def end(self, finish_reason: str | None, usage: Json, now: int) -> list[Json]:
        """The last delta came."""
        # an answer without text is one, too
        events = [] if self.response["output"] else self._text("message", "")
        events += self._close()
        reasons = {"length": "max_output_tokens", "timeout": "timeout"}
        status, response = "completed", self.response
        if finish_reason in reasons:
            status = "incomplete"
            response["incomplete_details"] = {"reason": reasons[finish_reason]}
            response["output"][-1]["status"] = "incomplete"
        response |= {"status": status, "completed_at": now, "usage": usage_json(usage)}
        return [*events, self._event(f"response.{status}", response=response)]

    def failed(self, code: str, message: str) -> Json:
        """The event that ends a stream which broke off."""
        error = {"code": code, "message": message}
        response = {**self.shown(), "status": "failed", "error": error}
        return self._event("response.failed", response=response)

    def shown(self) -> Json:
        return {**self.response, "output": list(self.response["output"])}

    def _event(self, kind: str, **members: Any) -> Json:
        event = {"type": kind, "sequence_number": self._sequence, **members}
        self._sequence += 1
        return event

    def _item(self, item: Json) -> list[Json]:
        """Open a new item behind the others."""
        events = self._close()
        self.response["output"].append(item)
        self._open = item
        shown = {**item, "content": []} if "content" in item else dict(item)
        return [*events, self._event("response.output_item.added", **self._place(), item=shown)]

    def _place(self) -> Json:
        return {"output_index": len(self.response["output"]) - 1}

    def _text(self, kind: str, text: str) -> list[Json]:
        """More text of the answer or of the reasoning before it."""
        events: list[Json] = []
        name = "reasoning_text" if kind == "reasoning" else "output_text"
        if self._open is None or self._open["type"] != kind:
            part: Json = {"type": name, "text": ""}
            if kind == "message":
                part |= {"annotations": [], "logprobs": []}
            prefix = "msg" if kind == "message" else "rs"
            item: Json = {"id": f"{prefix}_{secrets.token_hex(12)}", "type": kind}
            item |= {"status": "in_progress", "content": [part]}
            item["role" if kind == "message" else "summary"] = (
                "assistant" if kind == "message" else []
            )
            events = self._item(item)
            events.append(self._part("response.content_part.added", part=dict(part)))
        assert self._open is not None
        self._open["content"][0]["text"] += text
        more: Json = {"logprobs": []} if kind == "message" else {}
        return [*events, self._part(f"response.{name}.delta", delta=text, **more)]

    def _part(self, kind: str, **members: Any) -> Json:
        assert self._open is not None
        place = {"item_id": self._open["id"], **self._place(), "content_index": 0}
        return self._event(kind, **place, **members)

    def _call(self, index: int, call: Json) -> list[Json]:
        """More of a function call."""
        function, events = call.get("function") or {}, []
        item = self._calls.get(index)
        if item is None:
            item = {
                "id": f"fc_{secrets.token_hex(12)}",
                "type": "function_call",
                "status": "in_progress",
                "call_id": call.get("id") or f"call_{secrets.token_hex(12)}",
                "name": function.get("name") or "",
                "arguments": "",
            }
            self._calls[index] = item
            events = self._item(item)
        if arguments := function.get("arguments"):
            item["arguments"] += arguments
            place = {"item_id": item["id"], "output_index": self.response["output"].index(item)}
            kind = "response.function_call_arguments.delta"
            events.append(self._event(kind, **place, delta=arguments))
        return events

    def _close(self) -> list[Json]:
        """The open item is whole."""
        item = self._open
        if item is None:
            return []
        events: list[Json] = []
        item["status"] = "completed"
        if item["type"] == "function_call":
            events.append(
                self._event(
                    "response.function_call_arguments.done",
                    item_id=item["id"],
                    **self._place(),
                    name=item["name"],
                    arguments=item["arguments"],
                )
            )
        else:
            part = item["content"][0]
            more: Json = {"logprobs": []} if item["type"] == "message" else {}
            events.append(self._part(f"response.{part['type']}.done", text=part["text"], **more))
            events.append(self._part("response.content_part.done", part=dict(part)))
        events.append(self._event("response.output_item.done", **self._place(), item=dict(item)))
        self._open = None
        return events


def response_of(body: Parsed, id: str, model: str, now: int, store: bool) -> Json:
    """A response before its first token."""
    values = body.values
    text, reasoning = values["text"] or {}, values["reasoning"] or {}
    return {
        "id": id,
        "object": "response",
        "created_at": now,
        "completed_at": None,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": values["instructions"],
        "max_output_tokens": values["max_output_tokens"],
        "metadata": values["metadata"] or {},
        "model": model,
        "output": [],
        "parallel_tool_calls": values["parallel_tool_calls"],
        "previous_response_id": values["previous_response_id"],
        "reasoning": {"effort": reasoning.get("effort"), "summary": None},
        "store": store,
        "temperature": values["temperature"],
        "text": {"format": text.get("format") or {"type": "text"}},
        "tool_choice": values["tool_choice"] or "auto",
        "tools": values["tools"] or [],
        "top_p": values["top_p"],
        "truncation": "disabled",
        "usage": None,
    }


def usage_json(usage: Json) -> Json:
    """A chat's usage under the names of responses."""
    details = usage.get("completion_tokens_details") or {}
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": usage["prompt_tokens_details"]["cached_tokens"]},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": details.get("reasoning_tokens", 0)},
        "total_tokens": usage["total_tokens"],
    }
