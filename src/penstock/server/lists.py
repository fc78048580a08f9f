"""Lists of objects, a page at a time, as OpenAI's API has them."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from penstock.jobs.objects import Page
from penstock.server import kinds
from penstock.web.errors import json_response

PAGE = 100
"""Entries of a list, unless `limit` asks for fewer or more."""
MOST = 10_000


def cursor(request: Request) -> tuple[str | None, int, bool]:
    """(after, limit, whether the newest is first), from the query. Raises InvalidFieldError."""
    query = request.query_params
    text, order = query.get("limit", str(PAGE)), query.get("order", "desc")
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= MOST):
        raise kinds.wrong("limit", f"an integer from 1 to {MOST}", text)
    if order not in ("asc", "desc"):
        raise kinds.wrong("order", "asc or desc", order)
    return query.get("after"), int(text), order == "desc"


def page_response(page: Page) -> Response:
    found = page.data
    ends = {
        "first_id": found[0]["id"] if found else None,
        "last_id": found[-1]["id"] if found else None,
    }
    return json_response({"object": "list", "data": found, **ends, "has_more": page.has_more})
