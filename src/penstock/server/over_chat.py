"""Other protocols over chats: a body is translated to a chat's, its reply back from a chat's.

What crosses is the JSON of /v1/chat/completions, whole or in chunks, and nothing else: whatever
chats learn, such as tools, the other protocols have at once.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
from starlette.requests import Request

from penstock.errors import InvalidFieldError, PenstockError, UnsupportedFieldError
from penstock.llm import AsyncLLM
from penstock.server import fields, kinds
from penstock.server.answers import frames, whole
from penstock.server.asking import asked_of
from penstock.server.calls import Call, chat_call
from penstock.server.fields import CHAT, Parsed
from penstock.server.kinds import Kind
from penstock.server.service import Service
from penstock.web.sse import DONE, unless_gone

Json = dict[str, Any]

PASSED = (
    "model", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty",
    "frequency_penalty", "logit_bias", "bad_words", "seed", "min_tokens", "stop_token_ids",
    "ignore_eos", "timeout", "skip_special_tokens", "request_id", "priority", "cache_salt",
    "slo_class", "chat_template_kwargs",
)  # fmt: skip
"""Fields that chats have under the same name; `tables` gives them to the other protocols."""


def parsed_chat(chat: Json, names: Mapping[str, str]) -> Parsed:
    """The body of a chat, checked as such; errors name the other protocol's field. names: those
    that have another name there."""
    with renamed(names):
        return fields.read(fields.table(CHAT), chat)


def call_of(
    service: Service, llm: AsyncLLM, request: Request, chat: Json, names: Mapping[str, str]
) -> Call:
    """The call that a chat becomes. Raises what chats raise."""
    arrival_s = llm.clock.now()
    parsed = parsed_chat(chat, names)
    service.check_model(parsed["model"])
    with renamed(names):
        asked = asked_of(service, request, arrival_s, parsed["timeout"])
        return chat_call(llm, parsed, asked)


async def chat_reply(service: Service, request: Request, call: Call) -> Json:
    """The chat's reply as one object."""
    return await unless_gone(request.receive, whole(service, call), call.patience_s())


async def chat_chunks(service: Service, call: Call) -> AsyncGenerator[Json, None]:
    """The chat's chunks, as its stream would send them."""
    stream = frames(service, call)
    try:
        async for data in stream:
            for frame in data.split(b"\n\n"):
                if frame and frame + b"\n\n" != DONE:
                    yield msgspec.json.decode(frame.removeprefix(b"data: "))
    finally:
        await stream.aclose()


@contextmanager
def renamed(names: Mapping[str, str]) -> Any:
    """Errors raised inside name the field as the client knows it."""
    try:
        yield
    except PenstockError as error:
        head, bracket, rest = (error.param or "").partition("[")
        if head in names:
            error.param = names[head] + bracket + rest
        raise


def member(item: Json, name: str, kind: Kind, where: str) -> Any:
    """A member that must be there. Raises InvalidFieldError."""
    value = item.get(name)
    if value is None:
        raise InvalidFieldError(f"{where}.{name} is missing.", param=f"{where}.{name}")
    return kind.read(value, f"{where}.{name}")


def only(item: Json, known: tuple[str, ...], where: str) -> None:
    """Raise UnsupportedFieldError for members that are not known; nulls are absent."""
    for name, value in item.items():
        if name not in known and value is not None:
            raise UnsupportedFieldError(
                f"{where} has the unknown member {name[:60]!r}.", param=f"{where}.{name[:60]}"
            )


def texts(value: Any, parts: Mapping[str, tuple[str, ...]], where: str) -> str | list[Json]:
    """A message's content: text, or a list of text parts as chats have them.

    parts: type of a part -> its members. Raises InvalidFieldError and UnsupportedFieldError.
    """
    if isinstance(value, str):
        return value
    items = kinds.OBJECTS.read(value, where)
    return [text_part(item, parts, f"{where}[{i}]") for i, item in enumerate(items)]


def text_part(item: Json, parts: Mapping[str, tuple[str, ...]], where: str) -> Json:
    kind = member(item, "type", kinds.TEXT, where)
    if kind not in parts:
        raise UnsupportedFieldError(
            f"{where}: parts of type {kind[:60]!r} are not supported here.",
            cure=f"Send {', '.join(parts)}.",
            param=where,
        )
    only(item, ("type", "text", *parts[kind]), where)
    return {"type": "text", "text": member(item, "text", kinds.TEXT, where)}
