"""What comes beside a request's body: its id, its deadline, who sends it."""

from __future__ import annotations

from functools import partial

from starlette.requests import Request

from penstock.core.records import Origin
from penstock.server import kinds
from penstock.server.calls import Asked, header_class, header_seconds, new_id
from penstock.server.fields import CHAT, COMPLETIONS
from penstock.server.service import Service
from penstock.web.caller import caller_of
from penstock.web.farewell import after
from penstock.web.keys import mark

LOGGED = {"/v1/chat/completions": CHAT, "/v1/completions": COMPLETIONS}
"""names of endpoints in the log; of others it is their path"""


def request_id(request: Request) -> str:
    """The id of a request whose body is not known (yet): the client's, or a new one."""
    return header_id(request) or new_id()


def header_id(request: Request) -> str | None:
    """X-Request-Id, where it is one that may stand in logs and headers."""
    given = request.headers.get("x-request-id")
    return given if given is not None and kinds.is_request_id(given) else None


def asked_of(
    service: Service, request: Request, arrival_s: float, timeout_s: float | None
) -> Asked:
    """timeout_s: the deadline that the body names. The log is told when the reply is through.
    Raises InvalidFieldError for the deadline in the header."""
    header_s = header_seconds(request.headers.get("x-request-timeout"))
    if header_s is None and timeout_s is None:
        header_s = service.config.server.request_timeout_s
    caller, llm = caller_of(request.scope), service.llm()
    path: str = request.scope["path"]
    key = caller.name or mark(request.headers.get("authorization"))
    origin = Origin(endpoint=LOGGED.get(path, path), key=key, sends=True)
    origin.parsed_s = llm.clock.now()
    origin.slo_class = header_class(request.headers.get("x-slo-class"))
    if llm.log is not None:
        after(request, partial(llm.log.sent, origin))
    return Asked(header_id(request), header_s, arrival_s, caller, origin)
