from __future__ import annotations

import json

import pytest
from starlette.requests import Request

from penstock.errors import InvalidFieldError
from penstock.jobs.objects import Page
from penstock.server.lists import PAGE, cursor, page_response


def asked(query: str) -> Request:
    return Request({"type": "http", "headers": [], "query_string": query.encode()})


def test_a_cursor_is_read() -> None:
    assert cursor(asked("")) == (None, PAGE, True)
    assert cursor(asked("after=x&limit=5&order=asc")) == ("x", 5, False)


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=-1", "limit=x", "limit=99999999999", "order=up"]
)
def test_a_cursor_at_fault_is_refused(query: str) -> None:
    with pytest.raises(InvalidFieldError):
        cursor(asked(query))


def test_a_page_tells_its_ends() -> None:
    reply = json.loads(page_response(Page([{"id": "a"}, {"id": "b"}], True)).body)
    assert (reply["first_id"], reply["last_id"], reply["has_more"]) == ("a", "b", True)
    assert json.loads(page_response(Page([], False)).body)["first_id"] is None
