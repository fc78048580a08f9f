"""Bad input and refusals over HTTP, in process."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock.server.app import ROUTES
from penstock.web.limits import Door
from tests.llm.fake_client import FakeClient, deltas, llm_over
from tests.server.stage import CHAT, MESSAGES, TEXT, TOKENIZER, error_of, stage

CASES: list[tuple[str, Any, int, str, str | None]] = [
    ("chat/completions", b"{", 400, "invalid_request", None),
    ("chat/completions", b'{"messages": "\xff"}', 400, "invalid_request", None),
    ("chat/completions", [], 400, "invalid_request", None),
    ("chat/completions", {}, 400, "invalid_field", "messages"),
    ("chat/completions", {"messages": []}, 400, "invalid_field", "messages"),
    ("chat/completions", {"messages": ["hi"]}, 400, "invalid_field", "messages[0]"),
    ("chat/completions", {"messages": [{"content": "x"}]}, 400, "invalid_field", "messages[0]"),
    ("chat/completions", {**CHAT, "model": "gpt"}, 404, "model_not_found", "model"),
    ("chat/completions", {**CHAT, "model": 3}, 400, "invalid_field", "model"),
    ("chat/completions", {**CHAT, "temperature": "hot"}, 400, "invalid_field", "temperature"),
    ("chat/completions", {**CHAT, "temperature": -0.1}, 400, "invalid_field", "temperature"),
    ("chat/completions", {**CHAT, "temperature": 10**400}, 400, "invalid_field", "temperature"),
    ("chat/completions", {**CHAT, "top_p": 0}, 400, "invalid_field", "top_p"),
    ("chat/completions", {**CHAT, "top_p": True}, 400, "invalid_field", "top_p"),
    ("chat/completions", {**CHAT, "top_k": 1.5}, 400, "invalid_field", "top_k"),
    ("chat/completions", {**CHAT, "top_k": 10**30}, 400, "invalid_field", "top_k"),
    ("chat/completions", {**CHAT, "seed": 10**30}, 400, "invalid_field", "seed"),
    ("chat/completions", {**CHAT, "n": 0}, 400, "invalid_field", "n"),
    ("chat/completions", {**CHAT, "n": 10**6}, 400, "invalid_field", "n"),
    ("chat/completions", {**CHAT, "max_tokens": 0}, 400, "invalid_field", "max_tokens"),
    ("chat/completions", {**CHAT, "max_tokens": -5}, 400, "invalid_field", "max_tokens"),
    ("chat/completions", {**CHAT, "max_tokens": "5"}, 400, "invalid_field", "max_tokens"),
    (
        "chat/completions",
        {**CHAT, "max_tokens": 5, "max_completion_tokens": 6},
        400,
        "invalid_field",
        "max_tokens",
    ),
    ("chat/completions", {**CHAT, "max_tokens": 99}, 400, "context_length_exceeded", "max_tokens"),
    ("chat/completions", {**CHAT, "stop": [""]}, 400, "invalid_field", "stop"),
    ("chat/completions", {**CHAT, "stop_token_ids": [600]}, 400, "invalid_field", "stop_token_ids"),
    ("chat/completions", {**CHAT, "logit_bias": {"a": 1}}, 400, "invalid_field", "logit_bias"),
    ("chat/completions", {**CHAT, "logit_bias": {"600": 1}}, 400, "invalid_field", "logit_bias"),
    ("chat/completions", {**CHAT, "top_logprobs": 2}, 400, "invalid_field", "top_logprobs"),
    ("chat/completions", {**CHAT, "timeout": 0}, 400, "invalid_field", "timeout"),
    ("chat/completions", {**CHAT, "stream_options": {}}, 400, "invalid_field", "stream_options"),
    (
        "chat/completions",
        {**CHAT, "stream": True, "prompt_logprobs": 1},
        400,
        "invalid_field",
        "prompt_logprobs",
    ),
    ("chat/completions", {**CHAT, "tools": [{}]}, 400, "invalid_field", "tools"),
    ("chat/completions", {**CHAT, "temprature": 1}, 400, "unsupported_field", "temprature"),
    (
        "chat/completions",
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        400,
        "unsupported_field",
        "messages[0].content[0]",
    ),
    (
        "chat/completions",
        {**CHAT, "continue_final_message": True, "add_generation_prompt": True},
        400,
        "invalid_field",
        "continue_final_message",
    ),
    ("completions", {"prompt": ""}, 400, "invalid_field", "prompt"),
    ("completions", {"prompt": []}, 400, "invalid_field", "prompt"),
    ("completions", {"prompt": [[]]}, 400, "invalid_field", "prompt"),
    ("completions", {"prompt": [600]}, 400, "invalid_field", "prompt"),
    ("completions", {"prompt": ["a", 3]}, 400, "invalid_field", "prompt[1]"),
    ("completions", {"prompt": [5] * 100}, 400, "context_length_exceeded", "prompt"),
    ("completions", {"prompt": "fox " * 300}, 400, "context_length_exceeded", "prompt"),
    ("completions", {"prompt": ["a"] * 400}, 400, "invalid_field", "n"),
    ("completions", {**TEXT, "suffix": "x"}, 400, "unsupported_field", "suffix"),
    ("completions", {**TEXT, "best_of": 2}, 400, "unsupported_field", "best_of"),
    ("completions", {**TEXT, "logprobs": 65}, 400, "invalid_field", "logprobs"),
    ("completions", {**TEXT, "logprobs": True}, 400, "invalid_field", "logprobs"),
    ("completions", {**TEXT, "cache_salt": ""}, 400, "invalid_field", "cache_salt"),
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("path", "body", "status", "code", "param"), CASES)
async def test_bad_input(
    path: str, body: Any, status: int, code: str, param: str | None, stream: bool
) -> None:
    """A stream that is refused has the status too: no event was sent yet."""
    if stream and isinstance(body, dict) and param not in ("stream_options", "prompt_logprobs"):
        body = {**body, "stream": True}
    async with stage() as s:
        response = await s.post(f"/v1/{path}", body)
        error = error_of(response)
        assert (response.status_code, error["code"], error["param"]) == (status, code, param)
        assert error["type"] in ("invalid_request_error", "not_found_error")
        assert response.headers["x-request-id"]
        assert s.client.submissions == []
        assert s.service.door.live == 0
        assert (await s.chat()).status_code == 200


async def test_others_are_unharmed_by_bad_input() -> None:
    async with stage("Hello, wood!") as s:
        good = [s.chat(stream=i % 2 == 0) for i in range(10)]
        bad = [s.post(f"/v1/{path}", body) for path, body, *_ in CASES]
        responses = await asyncio.gather(*good[:5], *bad, *good[5:])
    assert [r.status_code for r in (*responses[:5], *responses[-5:])] == [200] * 10
    assert all(r.status_code >= 400 for r in responses[5:-5])


async def test_a_template_that_refuses() -> None:
    async with stage() as s:
        tokenizer = TOKENIZER
        templates = dict(tokenizer.chat_templates)
        tokenizer.chat_templates["default"] = "{{ raise_exception('roles must alternate') }}"
        try:
            s.service.open(llm_over(s.client, tokenizer))
            response = await s.chat()
        finally:
            tokenizer.chat_templates.update(templates)
        error = error_of(response)
        assert (response.status_code, error["code"]) == (400, "template_error")
        assert "roles must alternate" in error["message"]


async def test_a_bug_is_a_500_that_tells_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: Any) -> Any:
        raise RuntimeError("secret")

    async with stage(broken) as s:
        response = await s.chat()
    error = error_of(response)
    assert (response.status_code, error["type"], error["code"]) == (
        500,
        "server_error",
        "engine_error",
    )
    assert "secret" not in error["message"]
    assert "secret" in caplog.text


async def test_paths_and_methods() -> None:
    async with stage() as s:
        missing = await s.http.get("/v1/nothing")
        wrong = await s.http.get("/v1/chat/completions")
        assert (missing.status_code, error_of(missing)["code"]) == (404, "unknown_path")
        assert (wrong.status_code, error_of(wrong)["code"]) == (405, "method_not_allowed")
        assert wrong.headers["allow"] == "POST"


async def test_a_body_over_the_limit() -> None:
    async with stage(max_body_bytes=1000) as s:
        response = await s.post("/v1/completions", b" " * 1001)
    assert (response.status_code, error_of(response)["code"]) == (413, "body_too_large")


async def test_keys_guard_everything_but_probes_and_metrics() -> None:
    async with stage(api_key=("one", "two")) as s:
        for route in ROUTES:
            path = route.path.replace("{name:path}", "demo")
            open_ = await s.http.request(route.method, path)
            keyed = await s.http.request(
                route.method, path, headers={"Authorization": "Bearer two"}
            )
            assert (open_.status_code == 401) is not route.open, path
            assert keyed.status_code != 401
        response = await s.http.get("/v1/models")
        assert error_of(response)["code"] == "invalid_api_key"
        assert response.headers["www-authenticate"] == "Bearer"
        assert (await s.http.get("/no/such/path")).status_code == 401


async def test_a_full_queue_refuses_at_once_and_opens_again() -> None:
    async with stage(lambda sub: deltas([10], 1)) as s:
        s.service.door = Door(2)
        with s.service.door.admit(1):
            full = await s.chat(n=2)
            assert (full.status_code, error_of(full)["type"]) == (429, "rate_limit_error")
            assert int(full.headers["retry-after"]) >= 1
            assert (await s.chat()).status_code == 200
        assert (await s.chat(n=2)).status_code == 200
        s.service.door.drain()
        drained = await s.chat()
        assert (drained.status_code, error_of(drained)["code"]) == (503, "draining")


async def test_the_openapi_document_describes_the_bodies() -> None:
    async with stage() as s:
        document = (await s.http.get("/openapi.json")).json()
    chat = document["paths"]["/v1/chat/completions"]["post"]
    body = chat["requestBody"]["content"]["application/json"]["schema"]
    assert [kind["type"] for kind in body["properties"]["max_tokens"]["anyOf"]] == [
        "integer",
        "null",
    ]
    assert chat["summary"] == "Answer a chat."


async def test_a_model_that_is_still_loading() -> None:
    async with stage(loaded=False) as s:
        for path in ("/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize"):
            response = await s.post(path, {"messages": MESSAGES})
            assert (response.status_code, error_of(response)["code"]) == (503, "unavailable")
            assert response.headers["retry-after"] == "2"
        s.service.open(llm_over(FakeClient(lambda _: deltas([10])), TOKENIZER))
        assert (await s.chat()).status_code == 200
