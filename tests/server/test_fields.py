from __future__ import annotations

from typing import Any

import msgspec
import pytest
from openai.types import completion_create_params as legacy
from openai.types.chat import completion_create_params as chat

from penstock.errors import InvalidFieldError, RequestError, UnsupportedFieldError
from penstock.llm import SamplingParams
from penstock.server.fields import (
    CHAT,
    COMPLETIONS,
    DETOKENIZE,
    ENDPOINTS,
    FIELDS,
    TOKENIZE,
    Field,
    Rule,
    parse,
    schema,
    table,
)

LEAST: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "Hi"}]},
    COMPLETIONS: {"prompt": "Hi"},
    TOKENIZE: {"prompt": "Hi"},
    DETOKENIZE: {"tokens": [1]},
}
ACCEPTED: dict[str, list[Any]] = {
    "best_of": [1],
    "echo": [False],
    "add_special_tokens": [False],
    "tools": [[]],
    "functions": [[]],
    "tool_choice": ["none", "auto"],
    "function_call": ["none", "auto"],
    "response_format": [{"type": "text"}],
    "modalities": [["text"]],
    "verbosity": ["medium"],
    "store": [False],
    "include_reasoning": [True],
    "length_penalty": [1, 1.0],
    "use_beam_search": [False],
    "suffix": [""],
    "documents": [[]],
    "logits_processors": [[]],
    "spaces_between_special_tokens": [True],
    "return_tokens_as_token_ids": [False],
    "structured_outputs": [{}],
    "vllm_xargs": [{}],
    "mm_processor_kwargs": [{}],
    "media_io_kwargs": [{}],
}
"""Values of refused fields that equal the default behaviour."""

VLLM = {
    "use_beam_search", "top_k", "min_p", "repetition_penalty", "length_penalty", "stop_token_ids",
    "include_stop_str_in_output", "ignore_eos", "min_tokens", "skip_special_tokens",
    "spaces_between_special_tokens", "truncate_prompt_tokens", "prompt_logprobs",
    "allowed_token_ids", "bad_words", "add_special_tokens", "response_format", "guided_json",
    "guided_regex", "guided_choice", "guided_grammar", "structured_outputs", "priority",
    "request_id", "logits_processors", "return_tokens_as_token_ids", "return_token_ids",
    "cache_salt", "kv_transfer_params", "vllm_xargs",
}  # fmt: skip
"""What vLLM's completions and chats take beyond OpenAI's fields."""


def send(endpoint: str, **fields: Any) -> Any:
    return parse(endpoint, msgspec.json.encode({**LEAST[endpoint], **fields}))


@pytest.mark.parametrize(
    ("endpoint", "params"),
    [(CHAT, chat.CompletionCreateParamsBase), (COMPLETIONS, legacy.CompletionCreateParamsBase)],
)
def test_every_field_of_the_official_client_is_known(endpoint: str, params: Any) -> None:
    assert set(params.__annotations__) | {"stream"} | VLLM <= set(table(endpoint))


def test_a_field_stands_once_an_endpoint() -> None:
    for endpoint in ENDPOINTS:
        names = [field.name for field in FIELDS if endpoint in field.on]
        assert len(names) == len(set(names))


def test_every_sampling_parameter_can_be_sent() -> None:
    own = {name for name in SamplingParams.__dataclass_fields__ if name != "bad_words_ids"}
    for endpoint in (CHAT, COMPLETIONS):
        used = {f.name for f in FIELDS if endpoint in f.on and f.rule is Rule.USED}
        assert own <= used


def cases(rule: Rule) -> list[Any]:
    return [
        pytest.param(endpoint, field, id=f"{endpoint}-{field.name}")
        for endpoint in ENDPOINTS
        for field in table(endpoint).values()
        if field.rule is rule
    ]


@pytest.mark.parametrize(("endpoint", "field"), cases(Rule.REFUSED))
def test_refused_unless_default(endpoint: str, field: Field) -> None:
    for value in (None, *ACCEPTED.get(field.name, [])):
        parsed = send(endpoint, **{field.name: value})
        assert parsed.values == send(endpoint).values
    for value in ([{"a": 1}], {"type": "json_object"}, "x", 7, True):
        if value not in ACCEPTED.get(field.name, []):
            with pytest.raises(UnsupportedFieldError, match=f"^{field.name} is not") as caught:
                send(endpoint, **{field.name: value})
            assert caught.value.param == field.name
            assert caught.value.cure


@pytest.mark.parametrize(("endpoint", "field"), cases(Rule.LOGGED))
def test_accepted_and_logged(endpoint: str, field: Field) -> None:
    for value in ("x", {"a": 1}, 3, True):
        parsed = send(endpoint, **{field.name: value})
        assert parsed.logged == {field.name: value}
        assert parsed.values == send(endpoint).values
    assert send(endpoint, **{field.name: None}).logged == {}


@pytest.mark.parametrize(("endpoint", "field"), cases(Rule.USED))
def test_null_means_absent(endpoint: str, field: Field) -> None:
    if not field.required and field.name not in LEAST[endpoint]:
        assert send(endpoint, **{field.name: None}).values == send(endpoint).values


def test_as_many_best_as_choices_is_no_choice() -> None:
    assert send(COMPLETIONS, n=3, best_of=3)["n"] == 3
    with pytest.raises(UnsupportedFieldError):
        send(COMPLETIONS, n=1, best_of=3)


def test_unknown_fields_name_their_neighbour() -> None:
    with pytest.raises(UnsupportedFieldError, match=r"temprature.*Did you mean 'temperature'") as e:
        send(CHAT, temprature=1)
    assert e.value.param == "temprature"
    with pytest.raises(UnsupportedFieldError, match=r"zzz.*docs/api.md"):
        send(CHAT, zzz=1)
    with pytest.raises(UnsupportedFieldError) as long:
        send(CHAT, **{"x" * 10_000: 1})
    assert len(str(long.value)) < 200
    assert send(CHAT, zzz=None).logged == {}


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS, DETOKENIZE])
def test_what_is_required(endpoint: str) -> None:
    (name,) = LEAST[endpoint]
    for body in (b"{}", msgspec.json.encode({name: None})):
        with pytest.raises(InvalidFieldError, match=f"{name} is missing") as caught:
            parse(endpoint, body)
        assert caught.value.param == name


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "valid JSON"),
        (b"{", "valid JSON"),
        (b'{"a": 1} x', "valid JSON"),
        (b'{"prompt": NaN}', "valid JSON"),
        (b'{"prompt": 1e999}', "valid JSON"),
        (b'{"prompt": "\xff"}', "UTF-8"),
        (b'{"prompt": "\\ud800 lone"}', "valid JSON"),
        (b"[" * 100_000, "valid JSON"),
        (b'"text"', "not a JSON object"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
    ],
)
def test_bodies_that_are_no_objects(data: bytes, words: str) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        parse(COMPLETIONS, data)
    assert caught.value.code == "invalid_request"


def test_the_schema_describes_what_is_taken() -> None:
    described = schema(table(CHAT))
    assert described["required"] == ["messages"]
    properties = described["properties"]
    assert properties["temperature"]["anyOf"] == [{"type": "number"}, {"type": "null"}]
    assert properties["store"]["enum"] == [None, False]
    assert properties["messages"]["type"] == "array"
