"""Structured output the whole way: the demo model, hot, under every way of being scheduled."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jsonschema
import pytest

from penstock.core.request import FinishReason, Submission
from penstock.errors import GrammarError, UnsupportedFieldError
from penstock.llm import LLM, SamplingParams
from tests.grammar.schemas import all_schemas

PROMPTS = ["Once upon a time", "An object: "]
SCHEMA = all_schemas()["own-list-any-of"]
ASKED: list[dict[str, Any]] = [
    {"json": SCHEMA},
    {"json": all_schemas()["own-tree"]},
    {"regex": r"[a-z]{2,9}( [a-z]{2,9}){3}\."},
    {"choice": ["red", "green apple", "blue"]},
    {"json_object": True},
    {},
]


@contextmanager
def serving(**options: Any) -> Iterator[LLM]:
    options = {"dtype": "float32", "num_threads": 1, "max_model_len": 512, **options}
    with LLM("demo", **options) as llm:
        yield llm


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with serving() as made:
        yield made


def params(**more: Any) -> list[SamplingParams]:
    """One for each thing asked for, each with a seed of its own."""
    base = {"temperature": 1.3, "max_tokens": 60, **more}
    return [
        SamplingParams(**base, seed=i, structured_outputs=asked or None)
        for i, asked in enumerate(ASKED)
    ]


def answers(llm: LLM, **more: Any) -> list[list[list[int]]]:
    """Token ids by prompt, by thing asked for, by choice, all at once."""
    prompts = [prompt for prompt in PROMPTS for _ in ASKED]
    outputs = llm.generate(prompts, params(**more) * len(PROMPTS), use_tqdm=False)
    return [[one.token_ids for one in output.outputs] for output in outputs]


def test_every_way_of_scheduling_gives_the_same_tokens(llm: LLM) -> None:
    """Chunks, preemptions and depth move nothing, and neither does what stands in the way of a
    grammar: penalties, bans, logprobs, n."""
    more = {"n": 2, "presence_penalty": 0.3, "bad_words": ["the"], "min_tokens": 2, "logprobs": 1}
    wanted = answers(llm, **more)
    narrow = {"scheduler_depth": 1, "max_num_batched_tokens": 24, "max_num_seqs": 24}
    with serving(**narrow, max_model_len=256, kv_cache_memory_bytes=2_000_000) as other:
        assert answers(other, **more) == wanted
        assert other.llm.client.stats().preemptions > 0
        assert other.llm.client.stats().leaked_blocks == 0


def test_outputs_follow_what_was_asked_for(llm: LLM) -> None:
    for i, asked in enumerate(ASKED[:4]):
        for output in llm.generate(PROMPTS, params(max_tokens=400)[i], use_tqdm=False):
            (one,) = output.outputs
            assert one.finish_reason == "stop"
            if "json" in asked:
                jsonschema.validate(json.loads(one.text), asked["json"])
            elif "regex" in asked:
                assert re.fullmatch(asked["regex"], one.text)
            else:
                assert one.text in asked["choice"]


def test_a_continuation_gives_the_same_tokens(llm: LLM) -> None:
    """What becomes of a request whose engine ended: prompt and output so far go to another."""
    asked = SamplingParams(structured_outputs=ASKED[1], seed=3, temperature=1.3, max_tokens=80)
    (whole,) = llm.generate(PROMPTS[0], asked, use_tqdm=False)
    ids = whole.outputs[0].token_ids

    async def go_on() -> list[int]:
        generation = await llm.llm.generate(PROMPTS[0], asked)
        sampling = generation._choices[0].sampling
        await generation.aclose()
        done = Submission("moved", whole.prompt_token_ids, sampling, output=ids[:5])
        (box,) = llm.llm.client.submit([done])
        tokens: list[int] = []
        async for delta in box:
            tokens += delta.tokens
            if delta.finish is not None:
                assert delta.finish is FinishReason.STOP
                break
        return tokens

    assert llm._run(go_on()) == ids[5:]


def test_ends_that_are_put_off(llm: LLM) -> None:
    """With ignore_eos the answer goes on as long as its grammar can, and then it ends."""
    asked = SamplingParams(
        structured_outputs={"regex": "[a-z]{1,30}"}, ignore_eos=True, seed=1, max_tokens=60
    )
    (output,) = llm.generate(PROMPTS[0], asked, use_tqdm=False)
    assert re.fullmatch("[a-z]{30}", output.outputs[0].text)
    assert output.outputs[0].finish_reason == "stop"


def test_a_stop_string_cuts(llm: LLM) -> None:
    asked = SamplingParams(structured_outputs={"regex": "[a-z]{5}-[a-z]{5}"}, stop="-", seed=1)
    (output,) = llm.generate(PROMPTS[0], asked, use_tqdm=False)
    assert re.fullmatch("[a-z]{5}", output.outputs[0].text)
    assert output.outputs[0].stop_reason == "-"


@pytest.mark.parametrize("name", ["own-not", "own-if"])
def test_what_cannot_be_enforced_is_refused(llm: LLM, name: str) -> None:
    asked = SamplingParams(structured_outputs={"json": all_schemas()[name]})
    with pytest.raises(GrammarError, match=name.removeprefix("own-")):
        llm.generate("a", asked, use_tqdm=False)
    assert llm.generate("a", SamplingParams(max_tokens=1), use_tqdm=False)


def test_without_the_library_free_text_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "llguidance", None)
    with serving() as llm:
        assert llm.generate("a", SamplingParams(max_tokens=2), use_tqdm=False)
        asked = SamplingParams(structured_outputs={"regex": "a"})
        with pytest.raises(UnsupportedFieldError, match="llguidance"):
            llm.generate("a", asked, use_tqdm=False)


@pytest.mark.slow
def test_all_schemas_with_the_model(llm: LLM) -> None:
    """200 schemas, a hot model: all that is finished is valid, the rest is refused by name."""
    finished = refused = 0
    for name, schema in all_schemas().items():
        asked = SamplingParams(
            structured_outputs={"json": schema}, temperature=1.5, seed=1, max_tokens=400
        )
        try:
            (output,) = llm.generate(PROMPTS[1], asked, use_tqdm=False)
        except GrammarError:
            refused += 1
            continue
        if output.outputs[0].finish_reason == "stop":
            finished += 1
            kind = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
            kind(schema).validate(json.loads(output.outputs[0].text)), name
    assert refused < 30
    assert finished > 120
