"""Tools and structured output by the official client, against a real server with the demo model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from pydantic import BaseModel

from tests.server.process import Server, serving

WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
ASK: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "What is the weather in Paris?"}
]
OPTIONS: dict[str, Any] = {"model": "demo", "temperature": 0, "max_tokens": 100}


class Animal(BaseModel):
    name: str
    legs: int
    wild: bool


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    output = tmp_path_factory.mktemp("demo-server") / "output"
    flags = ["--kv-cache-memory-bytes", "16MiB", "--num-threads", "1", "--max-model-len", "1024"]
    with serving(Path("demo"), output, *flags) as made:
        yield made


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def test_a_call_and_what_comes_of_it(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(messages=ASK, tools=[WEATHER], **OPTIONS)
    (choice,) = reply.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    (call,) = choice.message.tool_calls or ()
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    told: list[ChatCompletionMessageParam] = [
        *ASK,
        choice.message.to_dict(),  # type: ignore[list-item]
        {"role": "tool", "tool_call_id": call.id, "content": "sunny, 20 degrees"},
    ]
    after = client.chat.completions.create(messages=told, tools=[WEATHER], **OPTIONS)
    assert after.choices[0].message.role == "assistant"


def test_a_streamed_call_equals_the_whole(client: openai.OpenAI) -> None:
    """OpenAI's shape: index, id and name first, then pieces of the arguments."""
    stream = client.chat.completions.create(messages=ASK, tools=[WEATHER], stream=True, **OPTIONS)
    deltas, reasons = [], []
    for chunk in stream:
        (choice,) = chunk.choices
        deltas += choice.delta.tool_calls or []
        assert not choice.delta.content
        reasons.append(choice.finish_reason)
    assert [reason for reason in reasons if reason] == ["tool_calls"]
    first, *rest = deltas
    assert first.index == 0
    assert first.id
    assert first.type == "function"
    assert first.function is not None
    assert (first.function.name, first.function.arguments) == ("get_weather", "")
    assert len(rest) > 1
    assert all(d.id is None and d.function and d.function.name is None for d in rest)
    arguments = "".join(d.function.arguments or "" for d in rest if d.function)
    assert json.loads(arguments) == {"city": "Paris"}


def test_the_client_puts_a_stream_together(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(messages=ASK, tools=[WEATHER], **OPTIONS) as stream:
        for _ in stream:
            pass
        completion = stream.get_final_completion()
    (call,) = completion.choices[0].message.tool_calls or ()
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "add"}}])
def test_a_choice_is_kept_by_a_hot_model(client: openai.OpenAI, choice: Any) -> None:
    parameters = {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "y"]}},
        "required": ["a", "b"],
        "additionalProperties": False,
    }
    add: Any = {"type": "function", "function": {"name": "add", "parameters": parameters}}
    hot = {**OPTIONS, "temperature": 1.5, "seed": 3, "tool_choice": choice}
    reply = client.chat.completions.create(messages=ASK, tools=[add], **hot)
    (call,) = reply.choices[0].message.tool_calls or ()
    assert call.type == "function"
    jsonschema.validate(json.loads(call.function.arguments), parameters)


def test_tools_that_are_not_to_be_called(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        messages=ASK, tools=[WEATHER], tool_choice="none", **OPTIONS
    )
    assert reply.choices[0].message.tool_calls is None
    assert reply.choices[0].finish_reason in ("stop", "length")


def test_a_parsed_answer(client: openai.OpenAI) -> None:
    """The client's own way of asking for a schema, strict."""
    reply = client.chat.completions.parse(
        messages=[{"role": "user", "content": "An animal?"}],
        response_format=Animal,
        **{**OPTIONS, "temperature": 1.3, "seed": 5, "max_tokens": 300},
    )
    assert isinstance(reply.choices[0].message.parsed, Animal)


@pytest.mark.parametrize(
    ("extra", "texts"),
    [
        ({"structured_outputs": {"choice": ["red", "blue"]}}, {"red", "blue"}),
        ({"guided_choice": ["red", "blue"]}, {"red", "blue"}),
        ({"guided_regex": "[ab]"}, {"a", "b"}),
    ],
)
def test_vllms_fields(client: openai.OpenAI, extra: dict[str, Any], texts: set[str]) -> None:
    chat = client.chat.completions.create(messages=ASK, extra_body=extra, **OPTIONS)
    assert chat.choices[0].message.content in texts
    text = client.completions.create(prompt="A", extra_body=extra, **OPTIONS)
    assert text.choices[0].text in texts


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"guided_json": {"type": "array", "uniqueItems": True}}, "uniqueItems"),
        ({"guided_regex": "("}, "regex"),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "regex and choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"thinking_token_budget": 5}, "thinking_token_budget"),
    ],
)
def test_what_is_refused_is_named(
    client: openai.OpenAI, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=words):
        client.chat.completions.create(messages=ASK, extra_body=fields, **OPTIONS)
