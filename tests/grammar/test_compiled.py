"""Masks lead to valid outputs and nowhere else; what cannot be enforced is refused by name."""

from __future__ import annotations

import json
import sys

import jsonschema
import pytest

from penstock.errors import GrammarError, GrammarLimitError, UnsupportedFieldError
from penstock.grammar import spec
from penstock.grammar.compiled import Vocabulary
from penstock.grammar.gbnf import to_lark
from penstock.grammar.spec import Grammar
from tests.grammar.schemas import all_schemas
from tests.grammar.walks import SIZE, ids_of, token_bytes, vocabulary, walk

NAMES = list(all_schemas())
REFUSED = (
    "uniqueItems", "oneOf", "not", "if", "then", "dependencies", "minProperties", "format",
    "circular references",
)  # fmt: skip
"""what the messages of refusals name"""


def check_schema(name: str, walks: int) -> int:
    """How many texts were finished; all of those are valid."""
    schema = all_schemas()[name]
    try:
        compiled = vocabulary().compile(spec.json_schema(schema).text())
    except GrammarError as error:
        if not any(word in error.message for word in REFUSED):
            raise
        return 0
    texts = [text for seed in range(walks) if (text := walk(compiled, seed)) is not None]
    kind = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
    for text in texts:
        kind(schema).validate(json.loads(text))
    return len(texts)


@pytest.mark.parametrize("name", NAMES[::8])
def test_a_sample_of_schemas(name: str) -> None:
    check_schema(name, 1)


@pytest.mark.slow
def test_all_schemas() -> None:
    """Of 200 schemas at least 170 can be enforced, and nothing invalid was ever finished."""
    assert len(NAMES) == 200
    finished = [check_schema(name, 5) for name in NAMES]
    assert sum(count > 0 for count in finished) >= 170
    assert sum(finished) >= 700


@pytest.mark.parametrize(
    "name",
    ["own-not", "own-unique", "own-if", "own-min-properties"],
)
def test_what_cannot_be_enforced_is_refused_by_name(name: str) -> None:
    word = {"own-not": "not", "own-unique": "uniqueItems", "own-if": "if"}.get(name)
    with pytest.raises(GrammarError, match=word or "minProperties"):
        vocabulary().compile(spec.json_schema(all_schemas()[name]).text())


@pytest.mark.parametrize(
    ("grammar", "texts"),
    [
        (spec.choice(["yes", "no", 'a "b"\n']), {"yes", "no", 'a "b"\n'}),
        (spec.regex("^(ab|a/b)$"), {"ab", "a/b"}),
        (spec.lark('start: "x" y\ny: "1" | "2"'), {"x1", "x2"}),
        (spec.lark(to_lark('root ::= "x" y\ny ::= "1" | "2"')), {"x1", "x2"}),
    ],
)
def test_the_texts_of_a_grammar(grammar: Grammar, texts: set[str]) -> None:
    compiled = vocabulary().compile(grammar.text())
    assert {walk(compiled, seed) for seed in range(30)} == texts


@pytest.mark.parametrize(
    "grammar",
    [spec.regex("(a"), spec.regex("a(?=b)"), spec.lark("start: nothing"), spec.lark("?")],
)
def test_a_broken_grammar(grammar: Grammar) -> None:
    with pytest.raises(GrammarError, match="The grammar cannot be used: "):
        vocabulary().compile(grammar.text())


def test_a_grammar_beyond_the_limits() -> None:
    both = " & ".join(f"/(?s:.*)a{i}.{{30}}b(?s:.*)/" for i in range(12))
    with pytest.raises(GrammarLimitError, match="fuel"):
        vocabulary().compile(spec.lark(f"start: A\nA: {both}").text())


def test_tokens_beyond_the_model_are_never_allowed() -> None:
    """A tokenizer may have more tokens than the model, which must not be asked for them."""
    from penstock.engine.hub import DEMO
    from penstock.grammar.vocabulary import tokenizer_json

    size = 1001
    small = Vocabulary(*tokenizer_json(DEMO), size)
    bits, may_end = small.compile(spec.regex(".*").text()).matcher().allowed()
    assert may_end
    assert max(ids_of(bits)) < size
    whole, _ = vocabulary().compile(spec.regex(".*").text()).matcher().allowed()
    assert ids_of(bits) == [i for i in ids_of(whole) if i < size]


def test_accepting_leads_where_rebuilding_does() -> None:
    """A state is rebuilt from the ids after a preemption."""
    compiled = vocabulary().compile(spec.json_object().text())
    first = {text: i for i, text in enumerate(token_bytes())}
    tokens = [first[b"{"], first[b'"'], first[b"a"], first[b'"'], first[b":"]]
    by_steps, at_once = compiled.matcher(), compiled.matcher()
    for token in tokens:
        by_steps.accept([token])
    at_once.accept(tokens)
    assert ids_of(by_steps.allowed()[0]) == ids_of(at_once.allowed()[0])
    with pytest.raises(GrammarError):
        by_steps.accept([first[b"}"]])


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(UnsupportedFieldError, match="llguidance"):
        Vocabulary("{}", 0, SIZE)


def test_a_tokenizer_that_cannot_be_read() -> None:
    with pytest.raises(UnsupportedFieldError, match="this model's tokenizer"):
        Vocabulary('{"model": 1}', 0, SIZE)
