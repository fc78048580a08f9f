"""The handlers of /v1/responses."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator

from starlette.requests import Request
from starlette.responses import Response

from penstock.errors import NotFoundError
from penstock.jobs.objects import Page
from penstock.server.calls import Call
from penstock.server.lists import cursor, page_response
from penstock.server.over_chat import Json, call_of, chat_chunks, chat_reply
from penstock.server.responses import NAMES, Assembly, chat_body, input_items, response_of
from penstock.server.service import Service
from penstock.server.tables import RESPONSES, parse
from penstock.web.caller import caller_of
from penstock.web.errors import as_typed, json_response
from penstock.web.limits import read_body
from penstock.web.sse import named_frame, unless_gone

MOST_TURNS = 1000
"""Responses that may follow each other."""


async def create(service: Service, request: Request) -> Response:
    """Answer, as the Responses API."""
    llm = service.llm()
    body = parse(RESPONSES, await read_body(request, service.config.server.max_body_bytes))
    store = service.keeps if body["store"] is None else body["store"]
    if store:
        service.data()  # or refuse at once
    owner = caller_of(request.scope).name
    items = input_items(body["input"])
    chat = chat_body(body, _conversation(service, owner, body["previous_response_id"]) + items)
    chat["stream"] = body["stream"]
    if body["stream"]:
        chat["stream_options"] = {"include_usage": True}
    call = call_of(service, llm, request, chat, NAMES)
    id = f"resp_{secrets.token_hex(16)}"
    made = response_of(body, id, call.adapter or service.names[0], int(time.time()), store)
    answer = _Answer(service, call, Assembly(made), owner, items if store else None)
    headers = {"X-Request-Id": call.request_id}
    if not body["stream"]:
        reply = await chat_reply(service, request, call)
        return json_response(answer.whole(reply), headers=headers)
    stream = answer.frames()
    first = await unless_gone(request.receive, anext(stream), call.patience_s())
    return service.stream(first, stream, call, headers)


async def get(service: Service, request: Request) -> Response:
    """A stored response."""
    return json_response(_stored(service, request)["response"])


async def delete(service: Service, request: Request) -> Response:
    """Forget a stored response."""
    id = request.path_params["id"]
    service.data().responses.delete(caller_of(request.scope).name, id)
    return json_response({"id": id, "object": "response", "deleted": True})


async def items(service: Service, request: Request) -> Response:
    """What a stored response answers, the newest first."""
    found: list[Json] = _stored(service, request)["input"]
    after, limit, newest_first = cursor(request)
    found = found[::-1] if newest_first else found
    if after is not None:
        places = [i for i, item in enumerate(found) if item.get("id") == after]
        if not places:
            raise NotFoundError(f"There is no item {after!r}.", param="after")
        found = found[places[0] + 1 :]
    return page_response(Page(found[:limit], len(found) > limit))


def _stored(service: Service, request: Request) -> Json:
    owner = caller_of(request.scope).name
    return service.data().responses.get(owner, request.path_params["id"])


def _conversation(service: Service, owner: str, id: str | None) -> list[Json]:
    """Items before this turn, the oldest first. Raises NotFoundError."""
    turns: list[list[Json]] = []
    while id is not None and len(turns) < MOST_TURNS:
        kept = service.data().responses.get(owner, id)
        turns.append(kept["input"] + kept["response"]["output"])
        id = kept["response"]["previous_response_id"]
    return [item for turn in reversed(turns) for item in turn]


class _Answer:
    """One response on its way; items: the input to keep with it, None when nothing is kept."""

    def __init__(
        self,
        service: Service,
        call: Call,
        assembly: Assembly,
        owner: str,
        items: list[Json] | None,
    ) -> None:
        self._service, self._call, self._assembly = service, call, assembly
        self._owner, self._items = owner, items

    def whole(self, reply: Json) -> Json:
        (choice,) = reply["choices"]
        self._assembly.delta(choice["message"])
        self._assembly.end(choice["finish_reason"], reply["usage"], int(time.time()))
        self._keep()
        return self._assembly.response

    async def frames(self) -> AsyncGenerator[bytes, None]:
        """The first is there when the first token is."""
        assembly, reason = self._assembly, None
        usage: Json = {}
        chunks = chat_chunks(self._service, self._call)
        began = False
        try:
            async for chunk in chunks:
                events = [] if began else assembly.begin()
                began = True
                usage = chunk.get("usage") or usage
                for choice in chunk["choices"]:
                    events += assembly.delta(choice["delta"])
                    reason = choice["finish_reason"] or reason
                if events:
                    yield _frames(events)
        except Exception as error:
            if not began:
                raise
            typed = as_typed(error)
            self._service.count_error(typed)
            yield _frames([assembly.failed(typed.code, str(typed))])
            return
        finally:
            await chunks.aclose()
        events = assembly.end(reason, usage, int(time.time()))
        self._keep()
        yield _frames(events)

    def _keep(self) -> None:
        if self._items is not None:
            response = self._assembly.response
            kept = {"id": response["id"], "response": response, "input": self._items}
            self._service.data().responses.add(self._owner, kept)


def _frames(events: list[Json]) -> bytes:
    return b"".join(named_frame(event["type"], event) for event in events)
