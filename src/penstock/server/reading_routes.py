"""The handlers of /v1/embeddings, /v1/score and /generate."""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from penstock.llm import AsyncLLM
from penstock.server.asking import asked_of
from penstock.server.calls import DEFAULT_MAX_TOKENS, Asked, Call, make_call, params_of
from penstock.server.fields import Parsed
from penstock.server.reading import Pairs, embed, embeddings_call, score, score_call
from penstock.server.replies import Json, Tokens
from penstock.server.routes import respond
from penstock.server.service import Service
from penstock.server.tables import EMBEDDINGS, GENERATE, SCORE, parse
from penstock.web.errors import json_response
from penstock.web.limits import read_body
from penstock.web.sse import unless_gone


async def embeddings(service: Service, request: Request) -> Response:
    """Texts as vectors."""
    llm, body, asked = await _asked(service, request, EMBEDDINGS)
    call = embeddings_call(llm, body, asked, service.config.model.pooling)
    reply = await unless_gone(request.receive, embed(service, call, body), call.patience_s())
    return _reply(reply, call)


async def scores(service: Service, request: Request) -> Response:
    """How likely continuations are after their contexts."""
    llm, body, asked = await _asked(service, request, SCORE)
    pairs = Pairs(body["context"], body["continuation"])
    await pairs.tokenize(llm, body["add_special_tokens"])
    call = score_call(llm, body, asked, pairs)
    reply = await unless_gone(request.receive, score(service, call, pairs), call.patience_s())
    return _reply(reply, call)


async def generate(service: Service, request: Request) -> Response:
    """Continue token ids by token ids."""
    llm, body, asked = await _asked(service, request, GENERATE)
    return await respond(service, request, generate_call(llm, body, asked))


def generate_call(llm: AsyncLLM, body: Parsed, asked: Asked) -> Call:
    """Raises InvalidFieldError."""
    params = params_of(llm, body, logprobs=body["logprobs"], max_tokens=body["max_tokens"])

    limit = DEFAULT_MAX_TOKENS
    submit = partial(llm.generate, body["token_ids"], params, default_max_tokens=limit)
    shown = Parsed({**body.values, "return_token_ids": True}, body.logged)
    return make_call(llm, shown, asked, params, Tokens(body["logprobs"]), [submit])


async def _asked(
    service: Service, request: Request, endpoint: str
) -> tuple[AsyncLLM, Parsed, Asked]:
    llm = service.llm()
    arrival_s = llm.clock.now()
    body = parse(endpoint, await read_body(request, service.config.server.max_body_bytes))
    service.check_model(body["model"])
    return llm, body, asked_of(service, request, arrival_s, body["timeout"])


def _reply(reply: Json, call: Call) -> Response:
    return json_response(reply, headers={"X-Request-Id": call.request_id})
