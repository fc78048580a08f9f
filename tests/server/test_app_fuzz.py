"""Whatever JSON comes: a reply or a typed refusal, never an internal error."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.server.fields import CHAT, COMPLETIONS, DETOKENIZE, TOKENIZE, table
from tests.server.stage import error_of, stage

PATHS = {
    CHAT: "/v1/chat/completions",
    COMPLETIONS: "/v1/completions",
    TOKENIZE: "/tokenize",
    DETOKENIZE: "/detokenize",
}
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.integers(-3, 700)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)
KEYS = st.sampled_from(["role", "content", "type", "text", "5", "include_usage"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def bodies(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    endpoint = draw(st.sampled_from(sorted(PATHS)))
    names = st.sampled_from(sorted(table(endpoint)))
    body = draw(st.dictionaries(names, VALUES, max_size=4))
    if draw(st.booleans()):
        likely = {"messages": [{"role": "user", "content": "a"}], "prompt": "a", "tokens": [5]}
        body = {k: v for k, v in likely.items() if k in table(endpoint)} | body
    return PATHS[endpoint], body


@settings(max_examples=150, deadline=None)
@given(bodies())
def test_no_body_is_an_internal_error(case: tuple[str, dict[str, Any]]) -> None:
    async def send() -> None:
        path, body = case
        body.pop("timeout", None)
        async with stage() as s:
            response = await s.post(path, msgspec.json.encode(body))
            assert response.status_code in (200, 400, 404), response.text
            if response.status_code != 200:
                assert error_of(response)["message"]
            assert s.service.door.live == 0

    asyncio.run(send())
