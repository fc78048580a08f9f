"""The official client against a real server process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.server.conftest import KEY
from tests.server.process import Server, wait

MODEL = "tiny"
MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello, fox!"}]


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as made:
        yield made


@pytest.fixture
async def async_client(server: Server) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as made:
        yield made


def test_models(client: openai.OpenAI) -> None:
    (model,) = client.models.list()
    assert (model.id, model.object) == (MODEL, "model")
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_a_chat(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_completion_tokens=12, extra_body={"ignore_eos": True}
    )
    (choice,) = reply.choices
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason == "length"
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 12
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + 12
    assert reply._request_id
    assert reply.id == f"chatcmpl-{reply._request_id}"


def test_a_streamed_chat_equals_the_whole(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"seed": 5, "max_tokens": 30, "temperature": 1.0}
    whole = client.chat.completions.create(model=MODEL, messages=MESSAGES, **options)
    stream = client.chat.completions.create(
        model=MODEL,
        messages=MESSAGES,
        stream=True,
        stream_options={"include_usage": True},
        **options,
    )
    *chunks, last = stream
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert last.choices == []
    assert last.usage is not None
    assert whole.usage is not None
    assert last.usage.completion_tokens == whole.usage.completion_tokens


def test_choices_logprobs_and_seeds(client: openai.OpenAI) -> None:
    def ask() -> Any:
        return client.chat.completions.create(
            model=MODEL,
            messages=MESSAGES,
            n=3,
            seed=11,
            max_tokens=8,
            logprobs=True,
            top_logprobs=2,
        )

    first, second = ask(), ask()
    texts = [choice.message.content for choice in first.choices]
    assert texts == [choice.message.content for choice in second.choices]
    assert len(set(texts)) == 3
    content = first.choices[0].logprobs.content
    assert len(content) <= 8
    assert all(len(token.top_logprobs) == 2 for token in content)
    assert all(token.logprob <= 0 for token in content)


def test_completions(client: openai.OpenAI) -> None:
    reply = client.completions.create(
        model=MODEL,
        prompt=["Once upon", "The fox"],
        max_tokens=6,
        temperature=0,
        echo=True,
        logprobs=1,
        extra_body={"ignore_eos": True, "return_token_ids": True},
    )
    assert [choice.index for choice in reply.choices] == [0, 1]
    assert reply.choices[1].text.startswith("The fox")
    logprobs = reply.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens is not None
    extra = reply.choices[0].model_extra
    assert extra is not None
    assert len(logprobs.tokens) == len(extra["prompt_token_ids"]) + len(extra["token_ids"])
    ids = client.completions.create(
        model=MODEL,
        prompt=extra["prompt_token_ids"],
        max_tokens=6,
        temperature=0,
        stream=True,
        extra_body={"ignore_eos": True},
    )
    assert "Once upon" + "".join(c.choices[0].text for c in ids) == reply.choices[0].text


def test_a_shared_prefix_is_read_from_the_cache(client: openai.OpenAI) -> None:
    prompt = "The fox said: " * 12
    create = client.completions.create
    create(model=MODEL, prompt=prompt, max_tokens=2)
    again = create(model=MODEL, prompt=prompt, max_tokens=2)
    salted = create(model=MODEL, prompt=prompt, max_tokens=2, extra_body={"cache_salt": "mine"})
    assert again.usage is not None
    assert again.usage.prompt_tokens_details is not None
    assert salted.usage is not None
    assert salted.usage.prompt_tokens_details is not None
    assert (again.usage.prompt_tokens_details.cached_tokens or 0) >= 16
    assert salted.usage.prompt_tokens_details.cached_tokens == 0


def test_errors_are_the_clients_classes(client: openai.OpenAI) -> None:
    create = client.chat.completions.create
    with pytest.raises(openai.BadRequestError) as bad:
        create(model=MODEL, messages=MESSAGES, temperature=-1)
    assert (bad.value.code, bad.value.param) == ("invalid_field", "temperature")
    with pytest.raises(openai.BadRequestError) as long:
        create(model=MODEL, messages=MESSAGES, max_tokens=10_000)
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError) as missing:
        create(model="gpt-4o", messages=MESSAGES)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").models.list()
    extra = {"timeout": 0.05, "ignore_eos": True}
    with pytest.raises(openai.InternalServerError) as late:
        create(model=MODEL, messages=MESSAGES, max_tokens=1900, extra_body=extra)
    assert late.value.status_code == 504


def test_a_deadline_in_a_stream(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL,
        messages=MESSAGES,
        stream=True,
        max_tokens=1900,
        extra_body={"ignore_eos": True, "timeout": 0.2},
    )
    reasons: list[str | None] = [chunk.choices[0].finish_reason for chunk in stream]
    assert reasons[-1] == "timeout"


def test_leaving_a_stream_frees_its_blocks(client: openai.OpenAI, server: Server) -> None:
    stream = client.completions.create(
        model=MODEL, prompt="Once", max_tokens=1900, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    stream.close()
    wait(lambda: server.metric("penstock:num_requests_running") == 0, 5.0)
    assert server.metric("penstock:requests_cancelled_total") >= 1


async def test_the_asynchronous_client(async_client: openai.AsyncOpenAI) -> None:
    """Many at once: each gets the answer that it gets alone."""

    async def ask(i: int) -> str:
        stream = await async_client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": f"Fox {i}"}],
            max_tokens=20,
            seed=i,
            stream=True,
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    together = await asyncio.gather(*(ask(i) for i in range(8)))
    assert together[3] == await ask(3)
    whole = await async_client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Fox 3"}], max_tokens=20, seed=3
    )
    assert whole.choices[0].message.content == together[3]
