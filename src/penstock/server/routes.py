"""The handlers: thin, one a path. All take (service, request) and return a response."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

import penstock
from penstock.errors import DrainingError, InvalidFieldError, UnsupportedFieldError
from penstock.llm import AsyncLLM
from penstock.server.answers import frames, whole
from penstock.server.asking import asked_of
from penstock.server.calls import (
    Asked,
    Call,
    chat_call,
    completions_call,
    template_options,
)
from penstock.server.fields import (
    CHAT,
    COMPLETIONS,
    DETOKENIZE,
    TOKENIZE,
    Parsed,
    parse,
)
from penstock.server.service import Service
from penstock.web.errors import json_response
from penstock.web.limits import read_body
from penstock.web.sse import unless_gone

log = logging.getLogger(__name__)


async def chat(service: Service, request: Request) -> Response:
    """Answer a chat."""
    return await _answer(service, request, CHAT, chat_call)


async def completions(service: Service, request: Request) -> Response:
    """Continue prompts."""
    return await _answer(service, request, COMPLETIONS, completions_call)


async def render(service: Service, request: Request) -> Response:
    """The prompt that a chat becomes, as text and ids."""
    llm = service.llm()
    body = await _body(service, request, CHAT)
    text, ids = await llm.render(body["messages"], **template_options(body))
    return json_response({"prompt": text, "token_ids": ids, "count": len(ids)})


async def models(service: Service, request: Request) -> Response:
    """The names that requests may use."""
    data = [_model(service, name) for name in (*service.names, *service.adapters)]
    return json_response({"object": "list", "data": data})


async def model(service: Service, request: Request) -> Response:
    """One model by its name."""
    name = request.path_params["name"]
    service.check_model(name)
    return json_response(_model(service, name))


async def tokenize(service: Service, request: Request) -> Response:
    """Text or a chat as token ids."""
    llm = service.llm()
    body = await _body(service, request, TOKENIZE)
    prompt, messages, special = body["prompt"], body["messages"], body["add_special_tokens"]
    if (prompt is None) == (messages is None):
        raise InvalidFieldError("Either prompt or messages is needed.", param="prompt")
    if messages is None:
        ids = await llm.tokenize(prompt, special is not False)
    else:
        if special:
            raise UnsupportedFieldError(
                "add_special_tokens does not go with messages: the template writes them.",
                cure="Leave it away.",
                param="add_special_tokens",
            )
        _, ids = await llm.render(messages, **template_options(body))
    texts = [llm.tokenizer.id_to_token(i) for i in ids] if body["return_token_strs"] else None
    size = llm.info.max_model_len
    reply = {"count": len(ids), "max_model_len": size, "tokens": ids, "token_strs": texts}
    return json_response(reply)


async def detokenize(service: Service, request: Request) -> Response:
    """Token ids as text."""
    llm = service.llm()
    body = await _body(service, request, DETOKENIZE)
    return json_response({"prompt": await llm.detokenize(body["tokens"])})


async def version(service: Service, request: Request) -> Response:
    """Version of the server."""
    return json_response({"version": penstock.__version__})


async def metrics(service: Service, request: Request) -> Response:
    """Metrics in Prometheus' text format."""
    return Response(service.metrics.render(), media_type=CONTENT_TYPE_LATEST)


async def live(service: Service, request: Request) -> Response:
    """200: the process listens."""
    return json_response({"status": "live"})


async def ready(service: Service, request: Request) -> Response:
    """200: new requests are taken."""
    if service.door.draining:
        raise DrainingError("This server is shutting down.", retry_after_s=5.0)
    service.check_health()
    return json_response({"status": "ready"})


async def health(service: Service, request: Request) -> Response:
    """200: requests are served. An engine of several that is being replaced is named."""
    wrong = service.check_health()
    if wrong:
        return json_response({"status": "degraded", "engines": wrong})
    return json_response({"status": "healthy"})


async def _answer(
    service: Service,
    request: Request,
    endpoint: str,
    make: Callable[[AsyncLLM, Parsed, Asked], Call],
) -> Response:
    llm = service.llm()
    arrival_s = llm.clock.now()
    body = await _body(service, request, endpoint)
    call = make(llm, body, asked_of(service, request, arrival_s, body["timeout"]))
    if body.logged:
        log.info("request %s: no effect of %s", call.request_id, ", ".join(body.logged))
    return await respond(service, request, call)


async def respond(service: Service, request: Request, call: Call) -> Response:
    """The call's reply, whole or as a stream. Raises what comes before its first token."""
    headers = {"X-Request-Id": call.request_id}
    if not call.stream:
        reply = await unless_gone(request.receive, whole(service, call), call.patience_s())
        return json_response(reply, headers=headers)
    stream = frames(service, call)
    first = await unless_gone(request.receive, anext(stream), call.patience_s())
    return service.stream(first, stream, call)


async def _body(service: Service, request: Request, endpoint: str) -> Parsed:
    body = parse(endpoint, await read_body(request, service.config.server.max_body_bytes))
    service.check_model(body["model"])
    trusted = service.config.server.trust_request_chat_template
    if body.values.get("chat_template") is not None and not trusted:
        raise UnsupportedFieldError(
            "chat_template is refused: a template is code, and this one would be the client's own.",
            cure="Leave it away; or serve with --chat-template, --trust-request-chat-template.",
            param="chat_template",
        )
    return body


def _model(service: Service, name: str) -> dict[str, Any]:
    info, adapter = service.info, service.adapters.get(name)
    return {
        "id": name,
        "object": "model",
        "created": service.created,
        "owned_by": "penstock",
        "root": service.config.model.model if adapter is None else adapter.path,
        "parent": None if adapter is None else service.names[0],
        "max_model_len": None if info is None else info.max_model_len,
        "vocab_size": None if info is None else info.vocab_size,
    }
