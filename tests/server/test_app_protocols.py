"""The official clients of OpenAI's Responses and Anthropic's Messages, against a real server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from tests.server.conftest import KEY
from tests.server.process import Server

MODEL = "tiny"
HI: list[Any] = [{"role": "user", "content": "Hello, fox!"}]


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as made:
        yield made


@pytest.fixture
def claude(server: Server) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key=KEY, max_retries=0) as made:
        yield made


def test_responses_follow_each_other(client: openai.OpenAI) -> None:
    extra = {"seed": 3, "ignore_eos": True}
    first = client.responses.create(
        model=MODEL, input="Hello, fox!", max_output_tokens=12, extra_body=extra
    )
    assert first.status == "incomplete"
    assert first.incomplete_details is not None
    assert first.usage is not None
    assert first.usage.output_tokens == 12
    chat = client.chat.completions.create(model=MODEL, messages=HI, max_tokens=12, extra_body=extra)
    assert first.output_text == chat.choices[0].message.content
    second = client.responses.create(
        model=MODEL, input="And?", previous_response_id=first.id, max_output_tokens=4
    )
    assert second.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens + 12
    assert client.responses.retrieve(second.id).previous_response_id == first.id
    (item,) = client.responses.input_items.list(first.id)
    assert item.content[0].text == "Hello, fox!"  # type: ignore[union-attr]
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)


def test_a_streamed_response(client: openai.OpenAI) -> None:
    extra = {"seed": 3, "ignore_eos": True}
    events = list(
        client.responses.create(
            model=MODEL, input=HI, max_output_tokens=12, stream=True, extra_body=extra
        )
    )
    assert (events[0].type, events[-1].type) == ("response.created", "response.incomplete")
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    whole = client.responses.create(model=MODEL, input=HI, max_output_tokens=12, extra_body=extra)
    assert text == whole.output_text == events[-1].response.output_text


def test_responses_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model=MODEL, input="x", truncation="auto")
    assert caught.value.param == "truncation"


def test_a_message_and_its_stream(claude: anthropic.Anthropic) -> None:
    options: dict[str, Any] = {"extra_body": {"seed": 3, "ignore_eos": True}}
    made = claude.messages.create(
        model=MODEL, max_tokens=12, messages=HI, system="Be brief.", **options
    )
    assert (made.stop_reason, made.usage.output_tokens) == ("max_tokens", 12)
    assert made.content[0].type == "text"
    with claude.messages.stream(
        model=MODEL, max_tokens=12, messages=HI, system="Be brief.", **options
    ) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == made.content[0].text
    assert (final.stop_reason, final.usage.output_tokens) == ("max_tokens", 12)
    counted = claude.messages.count_tokens(model=MODEL, messages=HI, system="Be brief.")
    usage = made.usage
    assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)


def test_messages_errors(claude: anthropic.Anthropic, server: Server) -> None:
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.create(model="other", max_tokens=5, messages=HI)
    with pytest.raises(anthropic.BadRequestError, match="top_k"):
        claude.messages.create(model=MODEL, max_tokens=5, messages=HI, extra_body={"top_k": -7})
    with (
        anthropic.Anthropic(base_url=server.url, api_key="wrong", max_retries=0) as other,
        pytest.raises(anthropic.AuthenticationError),
    ):
        other.messages.create(model=MODEL, max_tokens=5, messages=HI)
