from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.plan import TokenLogprobs
from penstock.core.request import FinishReason, Sampling
from penstock.text.outputs import Choice, TextDelta, position_logprobs
from penstock.text.params import SamplingParams
from penstock.text.pieces import Answer, Content, ToolCall
from penstock.text.reading import Reading, ToolUse
from penstock.text.reasoning import Section
from penstock.text.toolcalls.formats import FORMATS, Mark
from tests import vocabularies as made

TOKENIZER = made.byte_level()
END = TOKENIZER.token_to_id("<|im_end|>") or 0


def choice(index: int = 0, **params: object) -> Choice:
    return Choice(TOKENIZER, SamplingParams(**params), Sampling(choice=index))  # type: ignore[arg-type]


def entries(ids: list[int]) -> list[TokenLogprobs]:
    return [TokenLogprobs(i, -0.5, 1, [i, 0], [-0.5, -2.0]) for i in ids]


def test_a_whole_answer() -> None:
    ids = TOKENIZER.encode("Hello wood")
    one = choice(2)
    assert one.push(ids[:2], None, None, None).text == TOKENIZER.decode(ids[:2])
    last = one.push([*ids[2:], END], None, FinishReason.STOP, END)
    assert last.finish_reason == "stop"
    assert last.stop_reason is None, "the model's own end"
    output = one.output()
    assert (output.index, output.text) == (2, "Hello wood")
    assert output.token_ids == [*ids, END]
    assert output.logprobs is output.cumulative_logprob is None


@pytest.mark.parametrize(("include", "text"), [(False, "Hello"), (True, "Hello wood")])
def test_a_stop_id_has_text_only_when_asked_for(include: bool, text: str) -> None:
    ids = TOKENIZER.encode("Hello wood")
    stop_id = ids[-1]
    one = choice(stop_token_ids=[stop_id], include_stop_str_in_output=include)
    assert TOKENIZER.decode([stop_id]) == " wood"
    one.push(ids, None, FinishReason.STOP, stop_id)
    output = one.output()
    assert (output.text, output.token_ids) == (text, ids)
    assert (output.finish_reason, output.stop_reason) == ("stop", stop_id)


def test_a_stop_id_hides_special_text_too() -> None:
    one = choice(skip_special_tokens=False)
    one.push([*TOKENIZER.encode("Hi"), END], None, FinishReason.STOP, END)
    assert one.output().text == "Hi"


def test_text_held_back_comes_with_the_end() -> None:
    ids = TOKENIZER.encode("wood 👋")
    one = choice(stop=["wooden"])
    assert one.push(ids[:-1], None, None, None).text == "wood "
    assert one.push([], None, FinishReason.LENGTH, None).text == "\ufffd"
    assert one.output().text == TOKENIZER.decode(ids[:-1])


def test_a_stop_string_cuts_everything() -> None:
    """Tokens past the match are neither streamed nor counted nor kept, logprobs included."""
    ids = TOKENIZER.encode("Hello wood. And more")
    one = choice(stop=["."], logprobs=1)
    first = one.push(ids, entries(ids), FinishReason.LENGTH, None)
    taken = len(TOKENIZER.encode("Hello wood."))
    assert first.text == "Hello wood"
    assert (first.finish_reason, first.stop_reason) == ("stop", ".")
    assert first.token_ids == ids[:taken]
    assert len(first.logprobs or []) == taken
    output = one.output()
    assert output.token_ids == ids[:taken]
    assert output.cumulative_logprob == -0.5 * taken


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 9), max_size=20),
    stop=st.sampled_from(["wood", "ll", "o w", "zz"]),
)
def test_the_cut_into_deltas_does_not_matter(sizes: list[int], stop: str) -> None:
    ids = TOKENIZER.encode("Hello wood, hello 👋 world")
    whole, parts = choice(stop=stop), choice(stop=stop)
    whole.push(ids, None, FinishReason.LENGTH, None)
    rest, seen = ids, []
    for size in [*sizes, len(ids)]:
        finish = FinishReason.LENGTH if size >= len(rest) else None
        seen.append(parts.push(rest[:size], None, finish, None))
        rest = rest[size:]
        if parts.finish_reason is not None:
            break
    assert parts.output() == whole.output()
    assert "".join(delta.text for delta in seen) == whole.output().text
    assert [bool(delta.finish_reason) for delta in seen] == [False] * (len(seen) - 1) + [True]


def test_logprobs_have_texts_and_bytes() -> None:
    ids = TOKENIZER.encode("a👋")
    found = position_logprobs(TokenLogprobs(ids[1], -1.5, 3, [5, ids[0]], [-0.1, -0.2]), TOKENIZER)
    assert list(found) == [ids[1], 5, ids[0]]
    assert found[ids[1]].decoded_token == "\ufffd"
    assert found[ids[1]].bytes == TOKENIZER.token_bytes(ids[1])
    assert (found[ids[1]].rank, found[5].rank, found[ids[0]].rank) == (3, 1, 2)
    assert found[ids[0]].decoded_token == "a"


def test_a_delta_without_logprobs_when_none_were_asked_for() -> None:
    ids = TOKENIZER.encode("a")
    wanted = TextDelta(0, "a", ids, pieces=[Content("a")])
    assert choice().push(ids, entries(ids), None, None) == wanted
    assert choice().output().answer == Answer()


def test_calls_are_told_apart() -> None:
    """Their special tokens reach the parser, and the finish reason tells of them."""
    tools = ToolUse([{"type": "function", "function": {"name": "f"}}])
    specials = {"<|im_start|>": 1}
    form = replace(
        FORMATS["mistral_v11"], call=(Mark("<|im_start|>"), *FORMATS["mistral_v11"].call[1:])
    )
    reading = Reading(tools, form, None, Section.CLOSED, specials)
    one = Choice(TOKENIZER, SamplingParams(), Sampling(), reading)
    ids = TOKENIZER.encode('So<|im_start|>f[ARGS]{"a": 1}')
    for token in ids:
        one.push([token], None, None, None)
    last = one.push([END], None, FinishReason.STOP, END)
    assert last.finish_reason == "tool_calls"
    answer = one.output().answer
    assert answer == Answer("So", "", [ToolCall(answer.tool_calls[0].id, "f", '{"a": 1}')])
