from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from penstock.core.request import Sampling
from penstock.errors import ContextLengthError, InvalidFieldError, TokenizerError
from penstock.text.params import SamplingParams, generation_defaults
from tests import vocabularies as made

TOKENIZER = made.byte_level()


def resolve(params: SamplingParams, **changes: Any) -> tuple[Sampling, ...]:
    known = {"eos_ids": [2], "prompt_len": 10, "max_model_len": 100, "seed": 7, **changes}
    return params.resolve(TOKENIZER, **known)


def test_defaults_are_the_cores() -> None:
    assert resolve(SamplingParams()) == (Sampling(seed=7, max_tokens=90, stop_ids=(2,)),)


def test_everything_arrives() -> None:
    params = SamplingParams(
        n=2,
        temperature=0,
        top_p=0.5,
        top_k=3,
        min_p=0.1,
        repetition_penalty=1.1,
        presence_penalty=1,
        frequency_penalty=-1,
        logit_bias={"5": 1, 6: -100},  # type: ignore[dict-item]
        bad_words_ids=[[1, 2]],
        seed=-3,
        stop_token_ids=[4, 2],
        min_tokens=2,
        max_tokens=20,
        logprobs=0,
        prompt_logprobs=5,
    )
    first, second = resolve(params)
    assert first == Sampling(
        temperature=0.0,
        top_k=3,
        top_p=0.5,
        min_p=0.1,
        repetition_penalty=1.1,
        presence_penalty=1.0,
        frequency_penalty=-1.0,
        logit_bias=((5, 1.0), (6, -100.0)),
        bad_words=((1, 2),),
        seed=-3,
        choice=0,
        logprobs=0,
        prompt_logprobs=5,
        max_tokens=20,
        min_tokens=2,
        stop_ids=(4, 2),
    )
    assert (second.choice, second.seed) == (1, -3)


def test_top_k_minus_one_is_off() -> None:
    assert resolve(SamplingParams(top_k=-1))[0].top_k == 0


def test_ignore_eos_keeps_the_requests_own_stop_ids() -> None:
    assert resolve(SamplingParams(ignore_eos=True, stop_token_ids=[9]))[0].stop_ids == (9,)
    assert resolve(SamplingParams(ignore_eos=True))[0].stop_ids == ()


def test_max_tokens() -> None:
    assert resolve(SamplingParams(), default_max_tokens=16)[0].max_tokens == 16
    assert resolve(SamplingParams(), default_max_tokens=16, prompt_len=95)[0].max_tokens == 5
    assert resolve(SamplingParams(max_tokens=90), default_max_tokens=16)[0].max_tokens == 90
    with pytest.raises(ContextLengthError, match=r"10 tokens and max_tokens is 91.*holds 100") as e:
        resolve(SamplingParams(max_tokens=91))
    assert e.value.param == "max_tokens"
    assert "at most 90" in e.value.cure
    for length in (100, 5000):
        with pytest.raises(ContextLengthError, match=f"The prompt has {length}.*holds 100"):
            resolve(SamplingParams(), prompt_len=length)


def test_bad_words_in_both_forms() -> None:
    (sampling,) = resolve(SamplingParams(bad_words=["fox"]))
    assert [TOKENIZER.decode(list(ids)) for ids in sampling.bad_words] == ["fox", " fox"]
    (sampling,) = resolve(SamplingParams(bad_words=[" fox", "fox"]))
    assert [TOKENIZER.decode(list(ids)) for ids in sampling.bad_words] == [" fox", "fox"]


def test_stops() -> None:
    assert SamplingParams(stop="a").stops == ("a",)
    assert SamplingParams(stop=["a", "b"]).stops == ("a", "b")
    assert SamplingParams(stop=[]).stops == SamplingParams().stops == ()


NUMBERS = (
    ["temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"]
)  # fmt: skip
INTEGERS = ["n", "top_k", "min_tokens", "seed", "max_tokens", "logprobs", "prompt_logprobs"]
FLAGS = ["include_stop_str_in_output", "ignore_eos", "skip_special_tokens"]
LISTS = ["stop_token_ids", "bad_words", "bad_words_ids", "stop", "logit_bias"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((name, value) for name in NUMBERS for value in ("1", None, True, [], float("nan"))),
        *((name, 10**400) for name in NUMBERS),
        *((name, -3) for name in NUMBERS),
        *((name, value) for name in INTEGERS for value in ("1", 1.0, True, 10**30, -(10**30))),
        *((name, value) for name in FLAGS for value in (0, "true", None)),
        *((name, value) for name in LISTS for value in (3, [None], True)),
        ("n", 0),
        ("n", 129),
        ("top_k", -2),
        ("max_tokens", 0),
        ("logprobs", 65),
        ("stop", ""),
        ("stop", ["a", ""]),
        ("stop", ["a"] * 65),
        ("stop", "a" * 1025),
        ("bad_words", "fox"),
        ("bad_words", [" "]),
        ("bad_words_ids", [[]]),
        ("bad_words_ids", [["a"]]),
        ("stop_token_ids", [-1]),
        ("logit_bias", {"x": 1}),
        ("logit_bias", {"1": "x"}),
        ("logit_bias", {1: 101}),
        ("logit_bias", {-1: 1}),
        ("logit_bias", {"9" * 5000: 1}),
    ],
)
def test_bad_values_name_their_field(field: str, value: Any) -> None:
    if field == "max_tokens" and value == 10**30:
        with pytest.raises(ContextLengthError):
            resolve(SamplingParams(max_tokens=value))
        return
    with pytest.raises(InvalidFieldError) as raised:
        resolve(SamplingParams(**{field: value}))
    assert raised.value.param == field


def test_min_tokens_above_the_limit() -> None:
    with pytest.raises(InvalidFieldError, match="min_tokens must be at most max_tokens"):
        SamplingParams(min_tokens=5, max_tokens=4)
    with pytest.raises(InvalidFieldError, match="min_tokens must be at most max_tokens"):
        resolve(SamplingParams(min_tokens=91))


def test_ids_outside_the_models_vocabulary() -> None:
    for params in (SamplingParams(stop_token_ids=[50]), SamplingParams(logit_bias={50: 1})):
        resolve(params, vocab_size=51)
        with pytest.raises(InvalidFieldError, match="below 50"):
            resolve(params, vocab_size=50)


def test_generation_defaults(tmp_path: Path) -> None:
    assert generation_defaults(tmp_path) == {}
    path = tmp_path / "generation_config.json"
    data = {"temperature": 0.6, "top_k": None, "top_p": 0.9, "max_new_tokens": 5, "bos_token_id": 1}
    path.write_text(json.dumps(data))
    found = generation_defaults(tmp_path)
    assert found == {"temperature": 0.6, "top_p": 0.9, "max_tokens": 5}
    assert SamplingParams(**found).temperature == 0.6
    path.write_text("{")
    with pytest.raises(TokenizerError, match="not valid JSON"):
        generation_defaults(tmp_path)
