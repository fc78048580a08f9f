from __future__ import annotations

import pytest

from penstock.bench.http import HttpClient
from penstock.bench.prompts import SAFE_VOCAB_SIZE, Prompts
from penstock.bench.target import Form, Target, find_target, forms
from penstock.errors import AuthError, ConfigError, ModelNotFoundError, UnavailableError
from tests.bench.fake_server import Body, FakeServer, Reply, tokens

PROMPTS = Prompts(seed=1, length=8)
PLAIN = {"model", "max_tokens", "temperature", "stream"}


async def find(
    server: FakeServer, endpoint: str = "completions", model: str | None = None
) -> Target:
    client = HttpClient(server.url)
    try:
        return await find_target(client, endpoint, model, PROMPTS)
    finally:
        await client.close()


def takes(extra: set[str], kind: type) -> FakeServer:
    """A server that knows the plain fields and `extra`, with prompts of one kind."""

    def complete(path: str, body: Body) -> Reply:
        prompt = body.get("prompt", "")
        if set(body) - PLAIN - extra or not isinstance(prompt, kind):
            return 400, {"error": {"code": "unknown_field"}}
        return 200, tokens(body)

    return FakeServer(complete)


@pytest.mark.parametrize(
    ("extra", "kind", "form", "notes"),
    [
        ({"prompt", "ignore_eos", "return_token_ids", "stream_options"}, list, (1, 1, 1), 0),
        ({"prompt", "stream_options"}, list, (1, 0, 1), 1),
        ({"prompt", "stream_options"}, str, (0, 0, 1), 2),
        ({"prompt"}, str, (0, 0, 0), 3),
    ],
)
async def test_the_most_exact_form_that_is_taken_is_chosen(
    extra: set[str], kind: type, form: tuple[int, int, int], notes: int
) -> None:
    async with takes(extra, kind) as server:
        target = await find(server)
    chosen = target.form
    assert (chosen.ids, chosen.exact, chosen.usage) == form
    assert len(chosen.notes()) == notes
    assert set(target.body(0, 0, 5)) <= PLAIN | extra


async def test_text_prompts_are_calibrated_by_the_probe() -> None:
    """The fake server says 7 tokens for 8 words, so 8 tokens are about 9 words."""
    async with FakeServer(lambda path, body: (200, tokens(body))) as server:
        target = await find(server, "chat")
    (message,) = target.body(0, 0, 5)["messages"]
    assert len(message["content"].split()) == 9
    assert target.path == "/v1/chat/completions"


async def test_model_vocabulary_and_version_are_the_servers() -> None:
    async with FakeServer(lambda path, body: (200, tokens(body))) as server:
        assert (await find(server)).prompts.vocab_size == SAFE_VOCAB_SIZE
        server.pages["/v1/models"] = {"data": [{"id": "a"}, {"id": "b", "vocab_size": 77}]}
        server.pages["/version"] = {"version": "1.2"}
        target = await find(server, model="b")
    assert (target.model, target.version, target.prompts.vocab_size) == ("b", "1.2", 77)


async def test_without_a_list_of_models_one_must_be_named() -> None:
    async with FakeServer(lambda path, body: (200, tokens(body))) as server:
        server.pages.clear()
        with pytest.raises(ConfigError, match="Name one with --model"):
            await find(server)
        assert (await find(server, model="mine")).model == "mine"


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, AuthError), (404, ModelNotFoundError), (429, UnavailableError), (500, ConfigError)],
)
async def test_a_server_that_refuses_the_probe_is_told(status: int, error: type[Exception]) -> None:
    body = {"error": {"code": "some_code", "message": "its own words"}}
    async with FakeServer(lambda path, got: (status, body)) as server:
        with pytest.raises(error, match=r"some_code\. its own words"):
            await find(server)
    assert len(server.bodies) == 1


async def test_a_server_that_takes_no_form_is_told() -> None:
    async with takes(set(), str) as server:
        with pytest.raises(ConfigError, match="HTTP 400 unknown_field"):
            await find(server)
    assert len(server.bodies) == len(forms("completions")) == 4


def test_chat_has_no_ids() -> None:
    assert not any(form.ids for form in forms("chat"))
    body = Form("chat", ids=False, exact=True, usage=True).body("m", "hi", 3)
    assert body["messages"] == [{"role": "user", "content": "hi"}]
    assert "prompt" not in body
