from __future__ import annotations

from typing import Any

import msgspec
import pytest

from penstock.errors import InvalidFieldError
from penstock.server.calls import (
    Asked,
    Call,
    chat_call,
    completions_call,
    header_class,
    header_seconds,
)
from penstock.server.fields import CHAT, COMPLETIONS, parse
from tests.llm.fake_client import FakeClient, llm_over, saying
from tests.server.stage import MESSAGES, TOKENIZER

MODEL = llm_over(FakeClient(saying(TOKENIZER, "wood")), TOKENIZER)


def chat(timeout_s: float | None = None, **fields: Any) -> Call:
    body = parse(CHAT, msgspec.json.encode({"messages": MESSAGES, **fields}))
    return chat_call(MODEL, body, Asked(None, timeout_s, arrival_s=100.0))


def complete(request_id: str | None = None, **fields: Any) -> Call:
    body = parse(COMPLETIONS, msgspec.json.encode({"prompt": "Once", **fields}))
    return completions_call(MODEL, body, Asked(request_id, None, arrival_s=100.0))


SAMPLED: dict[str, Any] = {
    "n": 2,
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 7,
    "min_p": 0.1,
    "repetition_penalty": 1.1,
    "presence_penalty": 0.2,
    "frequency_penalty": 0.3,
    "logit_bias": {"5": 1.5},
    "bad_words": ["fox"],
    "seed": 3,
    "stop": ["x"],
    "stop_token_ids": [9],
    "include_stop_str_in_output": True,
    "ignore_eos": True,
    "min_tokens": 2,
    "max_tokens": 20,
    "prompt_logprobs": 1,
    "skip_special_tokens": False,
}


@pytest.mark.parametrize("make", [chat, complete])
def test_every_sampling_field_arrives(make: Any) -> None:
    params = make(**SAMPLED).params
    for name, value in SAMPLED.items():
        expected = {5: 1.5} if name == "logit_bias" else value
        assert getattr(params, name) == expected, name


def test_what_is_not_sent_is_the_models_default() -> None:
    assert chat().params == MODEL.params()
    assert complete().params == MODEL.params()


def test_a_string_is_a_stop() -> None:
    assert chat(stop="x").params.stops == ("x",)


def test_logprobs_of_both_forms() -> None:
    assert chat().params.logprobs is None
    assert chat(logprobs=True).params.logprobs == 0
    assert chat(logprobs=True, top_logprobs=4).params.logprobs == 4
    assert complete(logprobs=3).params.logprobs == 3


def test_limits_of_both_names() -> None:
    assert chat(max_tokens=5).params.max_tokens == 5
    assert chat(max_completion_tokens=5).params.max_tokens == 5
    assert chat(max_tokens=5, max_completion_tokens=5).params.max_tokens == 5


def test_an_echo_with_logprobs_scores_the_prompt() -> None:
    call = complete(echo=True, logprobs=2, max_tokens=0)
    assert (call.params.prompt_logprobs, call.params.max_tokens) == (2, 1)
    assert call.echo_only
    assert not call.prompt_logprobs
    assert complete(echo=True).params.prompt_logprobs is None


async def test_a_completion_writes_sixteen_tokens_or_what_the_context_holds() -> None:
    client = FakeClient(saying(TOKENIZER, "wood"))
    model = llm_over(client, TOKENIZER)
    for prompt in ([5], [5] * 95):
        body = parse(COMPLETIONS, msgspec.json.encode({"prompt": prompt}))
        (submit,) = completions_call(model, body, Asked(None, None, 0.0)).prompts
        await submit()
    assert [sub.sampling.max_tokens for sub in client.submissions] == [16, 5]


async def test_what_is_submitted_beside_the_sampling() -> None:
    client = FakeClient(saying(TOKENIZER, "wood"))
    fields = {"priority": -2, "cache_salt": "s", "timeout": 3, "request_id": "r"}
    body = parse(COMPLETIONS, msgspec.json.encode({"prompt": ["a", "b"], **fields}))
    call = completions_call(llm_over(client, TOKENIZER), body, Asked("other", 5.0, 100.0))
    assert (call.request_id, call.timeout_s, call.num_choices) == ("r", 3, 2)
    for submit in call.prompts:
        await submit()
    first, second = client.submissions
    assert (first.priority, first.cache_salt, first.deadline_s) == (-2, "s", 103.0)
    assert first.arrival_s == 100.0
    assert first.id.endswith(".0")
    assert second.id == first.id.removesuffix("0") + "1"


def test_the_sooner_deadline_counts() -> None:
    assert chat(timeout_s=2.0, timeout=3).timeout_s == 2.0
    assert chat(timeout_s=2.0, timeout=1).timeout_s == 1
    assert chat(timeout_s=None).timeout_s is None


def test_the_deadline_in_a_header() -> None:
    assert header_seconds(None) is None
    assert header_seconds("1.5") == 1.5
    for text in ("soon", "-1", "0", "nan", "inf", ""):
        with pytest.raises(InvalidFieldError, match="X-Request-Timeout must be a number of sec"):
            header_seconds(text)


def test_the_class_in_a_header() -> None:
    assert header_class(None) == ""
    assert header_class(" batch ") == "batch"
    with pytest.raises(InvalidFieldError, match="interactive, agent or batch"):
        header_class("urgent")
