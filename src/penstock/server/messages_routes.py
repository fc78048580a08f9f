"""The handlers of /v1/messages."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from starlette.requests import Request
from starlette.responses import Response

from penstock.server.calls import Call, template_options
from penstock.server.messages import NAMES, Assembly, chat_body, message_of
from penstock.server.over_chat import Json, call_of, chat_chunks, chat_reply, parsed_chat
from penstock.server.service import Service
from penstock.server.tables import COUNT, MESSAGES, parse
from penstock.web.errors import anthropic_body, as_typed, json_response
from penstock.web.limits import read_body
from penstock.web.sse import named_frame, unless_gone


async def create(service: Service, request: Request) -> Response:
    """Answer, as Anthropic's Messages API."""
    llm = service.llm()
    body = parse(MESSAGES, await read_body(request, service.config.server.max_body_bytes))
    chat = chat_body(body) | {"stream": body["stream"]}
    if body["stream"]:
        # The first event tells the prompt's tokens.
        chat["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
    call = call_of(service, llm, request, chat, NAMES)
    assembly = Assembly(message_of(f"msg_{call.request_id}", call.adapter or service.names[0]))
    headers = {"X-Request-Id": call.request_id, "request-id": call.request_id}
    if not body["stream"]:
        reply = await chat_reply(service, request, call)
        (choice,) = reply["choices"]
        assembly.delta(choice["message"])
        assembly.end(choice["finish_reason"], choice["stop_reason"], reply["usage"])
        return json_response(assembly.message, headers=headers)
    stream = _frames(service, call, assembly)
    first = await unless_gone(request.receive, anext(stream), call.patience_s())
    return service.stream(first, stream, call, headers)


async def count_tokens(service: Service, request: Request) -> Response:
    """The tokens of the prompt that a message becomes."""
    llm = service.llm()
    body = parse(COUNT, await read_body(request, service.config.server.max_body_bytes))
    chat = parsed_chat(chat_body(body), NAMES)
    service.check_model(chat["model"])
    _, ids = await llm.render(chat["messages"], **template_options(chat))
    return json_response({"input_tokens": len(ids)})


async def _frames(service: Service, call: Call, assembly: Assembly) -> AsyncGenerator[bytes, None]:
    """The first is there when the first token is."""
    reason, stop, usage, began = None, None, {}, False
    chunks = chat_chunks(service, call)
    try:
        async for chunk in chunks:
            usage = chunk["usage"]
            events = [] if began else assembly.begin(usage)
            began = True
            for choice in chunk["choices"]:
                events += assembly.delta(choice["delta"])
                reason = choice["finish_reason"] or reason
                stop = choice.get("stop_reason") or stop
            if events:
                yield _named(events)
    except Exception as error:
        if not began:
            raise
        typed = as_typed(error)
        service.count_error(typed)
        yield _named([anthropic_body(typed)])
        return
    finally:
        await chunks.aclose()
    yield _named(assembly.end(reason, stop, usage))


def _named(events: list[Json]) -> bytes:
    return b"".join(named_frame(event["type"], event) for event in events)
