from __future__ import annotations

from functools import partial

import pytest
from starlette.requests import Request

from penstock.errors import InvalidFieldError
from penstock.server.asking import asked_of, request_id
from penstock.web.caller import SCOPE_KEY, Caller
from tests.server.stage import stage


def request(**headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    scope = {"type": "http", "path": "/generate", "headers": raw, SCOPE_KEY: Caller("ann")}
    return Request(scope)


def test_the_id_is_the_clients_where_it_may_stand_in_logs() -> None:
    assert request_id(request(x_request_id="mine")) == "mine"
    assert request_id(request(x_request_id="two words")) != "two words"


async def test_what_comes_beside_the_body() -> None:
    async with stage(request_timeout_s=9.0) as s:
        asked = partial(asked_of, s.service)
        assert asked(request(x_request_timeout="3"), 1.0, None).timeout_s == 3.0
        assert asked(request(), 1.0, None).timeout_s == 9.0
        assert asked(request(), 1.0, 2.0).timeout_s is None, "the body's counts"
        assert asked(request(), 1.0, None).caller == Caller("ann")
        origin = asked(request(), 1.0, None).origin
        assert (origin.endpoint, origin.key, origin.sends) == ("/generate", "ann", True)
        with pytest.raises(InvalidFieldError):
            asked(request(x_request_timeout="soon"), 1.0, None)
