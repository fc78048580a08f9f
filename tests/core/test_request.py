from __future__ import annotations

import math
from typing import Any

import pytest

from penstock.core.request import MAX_LOGPROBS, Request, Sampling, Submission
from penstock.errors import InvalidFieldError

VOCAB = 50

GOOD: list[dict[str, Any]] = [
    {},
    {"temperature": 0.0, "top_k": 1, "top_p": 1e-9, "min_p": 1.0},
    {"temperature": 100.0, "repetition_penalty": 1e-3},
    {"presence_penalty": -2.0, "frequency_penalty": 2.0},
    {"seed": 2**64 - 1},
    {"seed": -(2**63)},
    {"logprobs": 0, "prompt_logprobs": MAX_LOGPROBS},
    {"min_tokens": 3, "max_tokens": 3},
    {"logit_bias": ((0, -100.0), (VOCAB - 1, 100.0)), "stop_ids": (0, VOCAB - 1)},
    {"bad_words": ((0,), (1, 2, 3))},
]

BAD: list[tuple[str, dict[str, Any]]] = [
    ("temperature", {"temperature": -0.1}),
    ("temperature", {"temperature": math.nan}),
    ("temperature", {"temperature": math.inf}),
    ("top_k", {"top_k": -1}),
    ("top_p", {"top_p": 0.0}),
    ("top_p", {"top_p": 1.1}),
    ("min_p", {"min_p": -0.1}),
    ("repetition_penalty", {"repetition_penalty": 0.0}),
    ("presence_penalty", {"presence_penalty": 2.1}),
    ("frequency_penalty", {"frequency_penalty": -2.1}),
    ("seed", {"seed": 2**64}),
    ("logprobs", {"logprobs": MAX_LOGPROBS + 1}),
    ("prompt_logprobs", {"prompt_logprobs": -1}),
    ("max_tokens", {"max_tokens": 0}),
    ("min_tokens", {"min_tokens": -1}),
    ("min_tokens", {"min_tokens": 4, "max_tokens": 3}),
    ("logit_bias", {"logit_bias": ((VOCAB, 0.0),)}),
    ("logit_bias", {"logit_bias": ((0, math.nan),)}),
    ("bad_words", {"bad_words": ((),)}),
    ("bad_words", {"bad_words": ((1, -1),)}),
    ("stop_token_ids", {"stop_ids": (-1,)}),
]


@pytest.mark.parametrize("fields", GOOD, ids=str)
def test_parameters_within_range(fields: dict[str, Any]) -> None:
    Sampling(**fields).validate(VOCAB)


@pytest.mark.parametrize(("param", "fields"), BAD, ids=str)
def test_parameters_out_of_range_are_named(param: str, fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidFieldError) as error:
        Sampling(**fields).validate(VOCAB)
    assert error.value.param == param
    assert param in error.value.message


def test_a_request_owns_its_tokens() -> None:
    submission = Submission("r", [1, 2, 3], Sampling(stop_ids=(7,), min_tokens=2))
    request = Request(submission, num_groups=2, limit=10)
    request.tokens.append(4)
    assert (request.num_prompt, request.num_output) == (3, 1)
    assert submission.prompt == [1, 2, 3]
    assert request.stops == {7}
    assert request.blocks == [[], []]
    request.blocks[0].append(5)
    assert request.blocks[1] == []
