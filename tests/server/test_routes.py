from __future__ import annotations

import pytest

import penstock
from penstock.errors import EngineStuckError
from tests.server.stage import CHAT, MESSAGES, TOKENIZER, error_of, stage

RENDERED = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"


async def test_models() -> None:
    async with stage() as s:
        listed = (await s.http.get("/v1/models")).json()
        (model,) = listed["data"]
        assert listed["object"] == "list"
        assert (model["id"], model["object"], model["max_model_len"]) == ("demo", "model", 100)
        assert (await s.http.get("/v1/models/demo")).json() == model
        missing = await s.http.get("/v1/models/owner/other")
        assert (missing.status_code, error_of(missing)["code"]) == (404, "model_not_found")


async def test_render_is_the_prompt_of_a_chat() -> None:
    async with stage() as s:
        rendered = (await s.post("/v1/chat/render", {"messages": MESSAGES})).json()
        await s.chat()
    assert rendered["prompt"] == RENDERED
    assert rendered["token_ids"] == s.client.submissions[0].prompt
    assert rendered["count"] == len(rendered["token_ids"])


async def test_continuing_the_last_message() -> None:
    """Saying so is enough: the generation prompt is then left away."""
    messages = [*MESSAGES, {"role": "assistant", "content": "Well, "}]
    body = {"messages": messages, "continue_final_message": True}
    async with stage() as s:
        rendered = (await s.post("/v1/chat/render", body)).json()
    assert rendered["prompt"].endswith("<|im_start|>assistant\nWell, ")


async def test_tokenize_and_back() -> None:
    async with stage() as s:
        text = (
            await s.post("/tokenize", {"prompt": "Once upon", "return_token_strs": True})
        ).json()
        assert text["tokens"] == TOKENIZER.encode("Once upon")
        assert (text["count"], text["max_model_len"]) == (len(text["tokens"]), 100)
        assert len(text["token_strs"]) == text["count"]
        back = (await s.post("/detokenize", {"tokens": text["tokens"]})).json()
        assert back == {"prompt": "Once upon"}
        chat = (await s.post("/tokenize", {"messages": MESSAGES})).json()
        assert chat["tokens"] == TOKENIZER.encode(RENDERED, add_special_tokens=False)
        assert chat["token_strs"] is None


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": MESSAGES}, "prompt"),
        ("/tokenize", {"messages": MESSAGES, "add_special_tokens": True}, "add_special_tokens"),
        ("/tokenize", {"prompt": 3}, "prompt"),
        ("/detokenize", {"tokens": [600]}, "tokens"),
        ("/detokenize", {"tokens": "1"}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
        ("/v1/chat/render", {"messages": []}, "messages"),
    ],
)
async def test_bad_input(path: str, body: object, param: str) -> None:
    async with stage() as s:
        response = await s.post(path, body)
    assert (response.status_code, error_of(response)["param"]) == (400, param)


async def test_version_and_metrics() -> None:
    async with stage() as s:
        assert (await s.http.get("/version")).json() == {"version": penstock.__version__}
        await s.chat(temperature=-1)
        await s.chat()
        metrics = await s.http.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain; version=")
    (line,) = [
        line
        for line in metrics.text.splitlines()
        if line.startswith("penstock:") and 'code="invalid_field"' in line
    ]
    counts = {"tokenize": 1, "detokenize": len(TOKENIZER.encode("wood"))}
    for name, count in counts.items():
        found = [x for x in metrics.text.splitlines() if f"penstock:{name}_seconds_count" in x]
        assert found[0].endswith(f" {count}.0"), found
    assert 'status="400"' in line
    assert line.endswith(" 1.0")


async def test_probes_while_loading_ready_stuck_and_draining() -> None:
    async def statuses() -> list[int]:
        paths = ("/live", "/ready", "/health")
        return [(await s.http.get(path)).status_code for path in paths]

    def stuck(stuck_after_s: float) -> list[str]:
        raise EngineStuckError("No progress for 61.0 s.")

    async with stage(loaded=False) as s:
        assert await statuses() == [200, 503, 503]
    async with stage() as s:
        assert await statuses() == [200, 200, 200]
        s.service.door.drain()
        assert await statuses() == [200, 503, 200]
    async with stage() as s:
        s.client.check_health = stuck  # type: ignore[method-assign]
        assert await statuses() == [200, 503, 503]
        assert (await s.chat()).status_code == 200, "requests wait for a replacement"
    async with stage() as s:
        s.client.check_health = lambda stuck_after_s: ["Engine 1 is restarting."]  # type: ignore[method-assign]
        answer = await s.http.get("/health")
        assert answer.status_code == 200
        assert answer.json() == {"status": "degraded", "engines": ["Engine 1 is restarting."]}


async def test_request_ids() -> None:
    """The client's, where it may stand in a header; the engine's are never reused."""
    async with stage() as s:
        for _ in range(2):
            response = await s.post("/v1/completions", {"prompt": "a"}, X_Request_Id="mine")
            assert response.headers["x-request-id"] == "mine"
            assert response.json()["id"] == "cmpl-mine"
        ids = {sub.id for sub in s.client.submissions}
        assert len(ids) == 2
        assert all(name.startswith("mine-") for name in ids)
        bad = await s.post("/v1/completions", {"prompt": "a", "top_p": 9}, X_Request_Id="mine")
        assert bad.headers["x-request-id"] == "mine"
        for given in ("two words", "x" * 200):
            response = await s.post("/v1/completions", {"prompt": "a"}, X_Request_Id=given)
            assert response.headers["x-request-id"] not in (given, "")
        body = {"prompt": "a", "request_id": "body"}
        response = await s.post("/v1/completions", body, X_Request_Id="header")
        assert response.headers["x-request-id"] == "body"


async def test_fields_without_effect_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with stage() as s:
        await s.chat(user="u-1", metadata={"k": "v"}, request_id="r9")
        assert "r9" in caplog.text
        assert "user, metadata" in caplog.text


async def test_deadlines_of_server_header_and_body() -> None:
    """The server's default is for requests that bring none; else the sooner one counts."""
    async with stage(request_timeout_s=30.0) as s:
        await s.complete()
        await s.post("/v1/completions", {"prompt": "a"}, X_Request_Timeout="50")
        await s.post("/v1/completions", {"prompt": "a", "timeout": 60}, X_Request_Timeout="50")
        await s.complete(timeout=60)
        left = [round((sub.deadline_s or 0) - sub.arrival_s) for sub in s.client.submissions]
        assert left == [30, 50, 50, 60]
        bad = await s.post("/v1/completions", {"prompt": "a"}, X_Request_Timeout="soon")
        assert (bad.status_code, error_of(bad)["param"]) == (400, "X-Request-Timeout")
    async with stage() as s:
        await s.complete()
        assert s.client.submissions[0].deadline_s is None


async def test_a_template_of_the_clients_own_is_trusted_only_where_told() -> None:
    own = {**CHAT, "chat_template": "{{ messages[0].content }}, please"}
    async with stage() as s:
        for path, body in (("/v1/chat/completions", own), ("/tokenize", own)):
            refused = await s.post(path, body)
            assert (refused.status_code, error_of(refused)["param"]) == (400, "chat_template")
            assert "--trust-request-chat-template" in error_of(refused)["message"]
    async with stage(trust_request_chat_template=True) as s:
        rendered = (await s.post("/v1/chat/render", own)).json()
        assert rendered["prompt"] == "Hello, please"
        broken = await s.post("/v1/chat/render", own | {"chat_template": "{% if %}"})
        assert error_of(broken)["code"] == "template_error"


async def test_pages_of_allowed_origins_may_call() -> None:
    ask = {"origin": "https://a.example", "access-control-request-method": "POST"}
    async with stage(allowed_origins=("https://a.example",), api_key=("k",)) as s:
        asked = await s.http.options("/v1/chat/completions", headers=ask)
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] == "https://a.example"
        other = await s.http.options("/v1/models", headers=ask | {"origin": "https://b.example"})
        assert "access-control-allow-origin" not in other.headers
    async with stage() as s:
        assert "access-control-allow-origin" not in (await s.chat()).headers
