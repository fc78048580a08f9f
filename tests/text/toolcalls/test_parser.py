"""However an answer is cut into deltas, it says the same, and nothing is lost or said twice."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.text.toolcalls.samples import SAMPLES, Sample, parse, wanted

IDS = [f"{sample.form}-{i}" for i, sample in enumerate(SAMPLES)]


def random_splits(text: str, count: int) -> Iterator[list[str]]:
    draw = random.Random(text)
    for _ in range(count):
        cuts = sorted(draw.sample(range(1, len(text)), draw.randint(0, min(len(text) - 1, 12))))
        yield [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def all_splits(text: str) -> Iterator[list[str]]:
    """Every way of cutting a short text."""
    for bits in range(1 << (len(text) - 1)):
        parts, start = [], 0
        for at in range(1, len(text)):
            if bits >> (at - 1) & 1:
                parts.append(text[start:at])
                start = at
        yield [*parts, text[start:]]


@pytest.mark.parametrize("sample", SAMPLES, ids=IDS)
def test_what_it_says(sample: Sample) -> None:
    assert parse(sample.form, [sample.text])[1] == wanted(sample)


@pytest.mark.parametrize("sample", SAMPLES, ids=IDS)
def test_however_it_is_cut(sample: Sample) -> None:
    whole, answer = parse(sample.form, [sample.text])
    assert parse(sample.form, list(sample.text)) == (whole, answer)
    for parts in random_splits(sample.text, 60):
        assert parse(sample.form, parts) == (whole, answer), parts


@pytest.mark.slow
@pytest.mark.parametrize("sample", SAMPLES, ids=IDS)
def test_however_it_is_cut_10_000_times(sample: Sample) -> None:
    whole = parse(sample.form, [sample.text])
    for parts in random_splits(sample.text, 10_000):
        assert parse(sample.form, parts) == whole, parts


SHORT = {
    "hermes": ' <tool_call>{"name":"f"}',
    "llama3": '{"name":"f"};{}',
    "mistral": '[TOOL_CALLS][{"n',
    "mistral_v11": "[TOOL_CALLS]f[ARGS]{}",
    "qwen3_coder": "<tool_call><func",
    "deepseek_v3": "<｜tool▁calls▁b",
    "deepseek_v31": "<｜tool▁calls▁b",
    "json": '[{"name":"f"}]x',
    "gpt_oss": "a<|end|> <|mess",
}
CUT = {form: [text[-11:], text[:11]] for form, text in SHORT.items()}


@pytest.mark.parametrize("form", SHORT)
def test_all_ways_of_cutting_short_texts(form: str) -> None:
    """2^10 ways for each of two, one that begins with the format's marks and one that ends so."""
    for text in CUT[form]:
        whole = parse(form, [text])
        for parts in all_splits(text):
            assert parse(form, parts) == whole, parts


@pytest.mark.slow
@pytest.mark.parametrize("form", SHORT)
def test_all_ways_of_cutting_whole_short_texts(form: str) -> None:
    text = SHORT[form][:18]
    whole = parse(form, [text])
    for parts in all_splits(text):
        assert parse(form, parts) == whole, parts


@pytest.mark.parametrize("sample", SAMPLES, ids=IDS)
def test_an_answer_that_breaks_off_loses_nothing(sample: Sample) -> None:
    """Cut off anywhere, an answer is a beginning of the whole one, but for marks not yet closed."""
    final = parse(sample.form, [sample.text])[1]
    for size in range(1, len(sample.text)):
        answer = parse(sample.form, [sample.text[:size]])[1]
        for call, last in zip(answer.tool_calls, final.tool_calls, strict=False):
            assert call.name == last.name
            assert last.arguments.startswith(call.arguments.removesuffix("}"))
        assert len(answer.tool_calls) <= len(final.tool_calls)
