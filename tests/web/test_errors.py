from __future__ import annotations

import msgspec
import pytest

from penstock.errors import ERRORS, AuthError, EngineError, InvalidFieldError, QueueFullError
from penstock.web import errors


def test_the_body_has_openais_shape_and_says_cause_and_cure() -> None:
    error = InvalidFieldError("top_p must be in (0, 1].", cure="Send less.", param="top_p")
    reply = errors.error_response(error)
    assert reply.status_code == 400
    assert msgspec.json.decode(reply.body) == {
        "error": {
            "message": "top_p must be in (0, 1]. Send less.",
            "type": "invalid_request_error",
            "param": "top_p",
            "code": "invalid_field",
        }
    }


@pytest.mark.parametrize("code", sorted(ERRORS))
def test_every_code_has_a_status(code: str) -> None:
    """What a client can do about it: 4xx change the request, 429 and 503 come back later."""
    status = errors.status_of(code)
    family = ERRORS[code].__mro__[1].__name__
    if family == "RequestError":
        assert 400 <= status < 429
    elif family == "UnavailableError":
        assert status in (429, 503)
    elif code not in ("invalid_request", "unavailable", "deadline_exceeded"):
        assert status == 500


def test_what_may_pass_later_says_when() -> None:
    assert errors.headers_of(QueueFullError("full", retry_after_s=1.2)) == {"Retry-After": "2"}
    assert errors.headers_of(QueueFullError("full")) == {"Retry-After": "1"}
    assert errors.headers_of(AuthError("no")) == {"WWW-Authenticate": "Bearer"}
    assert errors.headers_of(EngineError("boom")) == {}


def test_a_bug_is_told_in_general_and_logged_whole(caplog: pytest.LogCaptureFixture) -> None:
    typed = errors.as_typed(KeyError("secret detail"))
    assert isinstance(typed, EngineError)
    assert "KeyError" in str(typed)
    assert "secret" not in str(typed)
    assert "secret detail" in caplog.text
