from __future__ import annotations

import pytest
from starlette.requests import Request

from penstock.config import Config, ServerConfig
from penstock.errors import InvalidFieldError
from penstock.server.asking import asked_of, request_id
from penstock.server.service import Service
from penstock.web.caller import SCOPE_KEY, Caller


def request(**headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    return Request({"type": "http", "headers": raw, SCOPE_KEY: Caller("ann")})


def test_the_id_is_the_clients_where_it_may_stand_in_logs() -> None:
    assert request_id(request(x_request_id="mine")) == "mine"
    assert request_id(request(x_request_id="two words")) != "two words"


def test_the_deadline_is_the_headers_or_the_servers() -> None:
    service = Service(Config(server=ServerConfig(request_timeout_s=9.0)))
    assert asked_of(service, request(x_request_timeout="3"), 1.0, None).timeout_s == 3.0
    assert asked_of(service, request(), 1.0, None).timeout_s == 9.0
    assert asked_of(service, request(), 1.0, 2.0).timeout_s is None, "the body's counts"
    assert asked_of(service, request(), 1.0, None).caller == Caller("ann")
    with pytest.raises(InvalidFieldError):
        asked_of(service, request(x_request_timeout="soon"), 1.0, None)
