"""Grammars as text: quoting, special tokens, what stands before an answer."""

from __future__ import annotations

import json

import pytest

from penstock.errors import GrammarError, InvalidFieldError
from penstock.grammar import spec
from tests.grammar.walks import ids_of, token_bytes, vocabulary, walk

SPECIALS = {"<think>": 9, "</think>": 10, "<|im_end|>": 2}


@pytest.mark.parametrize(
    ("pattern", "literal"),
    [
        ("ab", "/ab/"),
        ("^ab$", "/ab/"),
        (r"ab\$", r"/ab\$/"),
        (r"ab\\$", r"/ab\\/"),
        ("a/b", r"/a\/b/"),
        (r"a\/b", r"/a\/b/"),
        ("a\nb", r"/a\nb/"),
    ],
)
def test_regex_literals(pattern: str, literal: str) -> None:
    assert spec.regex_literal(pattern) == literal


def test_special_tokens_stand_by_their_ids() -> None:
    assert spec.marks("a<think>b", SPECIALS) == '"a" <[9]> "b"'
    assert spec.marks("</think><think>", SPECIALS) == "<[10]> <[9]>"
    assert spec.marks("plain", SPECIALS) == '"plain"'


@pytest.mark.parametrize("mark", ["</think>", "[end]", "\n</think>"])
def test_a_section_before_an_answer(mark: str) -> None:
    """Text up to a mark, which may be a token of its own or not, then the answer."""
    rules = spec.up_to("section", mark, SPECIALS)
    compiled = vocabulary().compile(spec.choice(["yes"]).text("section", rules))
    matcher = compiled.matcher()
    plain, _, special = mark.partition("</think>") if "</think>" in mark else (mark, "", "none")
    matcher.accept(_tokens("so y ] </x" + plain) + ([10] if not special else []))
    bits, may_end = matcher.allowed()
    assert not may_end
    assert {token_bytes()[i] for i in ids_of(bits)} <= {b"y", b"ye", b"yes"}
    matcher.accept(_tokens("yes"))
    assert matcher.allowed()[1]


def test_white_space_is_bounded() -> None:
    """A model that loops in white space comes to an end."""
    compiled = vocabulary().compile(spec.json_object().text())
    matcher = compiled.matcher()
    matcher.accept(_tokens("{" + " " * 40))
    bits, _ = matcher.allowed()
    space = _tokens(" ")[0]
    assert not bits[space // 32] >> (space % 32) & 1


@pytest.mark.parametrize("space", [None, " "])
def test_white_space_as_asked_for(space: str | None) -> None:
    compiled = vocabulary().compile(spec.json_schema({"const": {"a": 1}}, space).text())
    texts = {walk(compiled, seed) for seed in range(8)}
    assert '{"a":1}' in texts or any(texts)
    assert all(
        text is not None and text.count(" ") <= (0 if space is None else 4) for text in texts
    )


def test_a_schema_that_is_none() -> None:
    with pytest.raises(InvalidFieldError, match="must be an object"):
        spec.json_schema([1])
    assert json.loads(spec.json_schema(True).text())
    with pytest.raises(GrammarError, match="x-guidance"):
        spec.json_schema({"x-guidance": {"lenient": True}})


def _tokens(text: str) -> list[int]:
    known = {raw: i for i, raw in enumerate(token_bytes())}
    return [known[char.encode()] for char in text]


def test_texts_that_spell_a_special_token() -> None:
    """A choice may have such a text; it is written with other tokens."""
    grammar = spec.choice(["a<think>b", "a<think>c"])
    compiled = vocabulary().compile(grammar.text(specials=SPECIALS))
    assert {walk(compiled, seed) for seed in range(6)} == {"a<think>b", "a<think>c"}
