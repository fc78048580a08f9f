from __future__ import annotations

from typing import Any

import pytest

from penstock.errors import AuthError
from penstock.web.keys import KeyGate, Keys, mark


def test_no_keys_lets_everybody_in() -> None:
    Keys([]).check(None)


@pytest.mark.parametrize("header", ["Bearer one", "bearer two", "Bearer  two "])
def test_each_key_opens(header: str) -> None:
    Keys(["one", "two"]).check(header)


@pytest.mark.parametrize(
    "header", [None, "", "one", "Basic one", "Bearer", "Bearer on", "Bearer onee", "Bearer ö"]
)
def test_everything_else_is_refused(header: str | None) -> None:
    with pytest.raises(AuthError) as caught:
        Keys(["one", "two"]).check(header)
    assert caught.value.cure


async def test_the_gate_guards_all_but_the_open_paths() -> None:
    statuses: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        statuses.append(200)

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async def receive() -> Any:
        raise AssertionError("the body of a refused request is not read")

    gate = KeyGate(app, Keys(["k"]), frozenset({"/live"}))
    for path, headers in [
        ("/live", []),
        ("/v1/models", []),
        ("/v1/models", [(b"authorization", b"Bearer k")]),
        ("/anything", [(b"authorization", b"Bearer wrong")]),
    ]:
        await gate({"type": "http", "path": path, "headers": headers}, receive, send)
    assert statuses == [200, 401, 200, 401]


def test_what_logs_say_of_a_key() -> None:
    assert mark("Bearer one") == mark("bearer  one ") != mark("Bearer two")
    assert (mark(None), mark("Bearer"), len(mark("Bearer one"))) == ("", "", 8)
