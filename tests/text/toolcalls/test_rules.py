"""What a grammar lets a model write, the parser of the same format reads: random walks through
both, for every format, choice and parallelism."""

from __future__ import annotations

import json

import jsonschema
import pytest

from penstock.errors import GrammarError
from penstock.text.pieces import Answer
from penstock.text.toolcalls.formats import FORMATS
from penstock.text.toolcalls.rules import Tool, tool_rules
from tests.grammar.walks import ids_of, token_bytes, vocabulary, walk
from tests.text.toolcalls.samples import SCHEMAS, parser_of

TEXT = {"type": "string", "maxLength": 5}
SMALL = {
    "get_weather": {
        "type": "object",
        "properties": {"city": TEXT, "unit": {"type": "string", "enum": ["C", "F"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "add": {
        "type": "object",
        "properties": {"a": {"type": "integer", "maximum": 99}, "b": {"type": "boolean"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
}
SPECIALS = {"<tool_call>": 3, "</tool_call>": 4}
TOOLS = [Tool(name, schema) for name, schema in SMALL.items()]


def read(form: str, text: str) -> Answer:
    parser, answer = parser_of(form), Answer()
    answer.add([*parser.feed(text), *parser.end()])
    return answer


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("form", FORMATS)
def test_a_call_that_must_be(form: str, parallel: bool) -> None:
    grammar = tool_rules(FORMATS[form], TOOLS, SPECIALS, must=True, parallel=parallel)
    compiled = vocabulary().compile(grammar.text())
    finished = 0
    for seed in range(4):
        text = walk(compiled, seed, most=150)
        if text is None:
            continue
        finished += 1
        answer = read(form, text)
        assert answer.content == ""
        assert answer.tool_calls
        assert parallel or len(answer.tool_calls) == 1
        for call in answer.tool_calls:
            arguments = json.loads(call.arguments)
            schema = SMALL[call.name]
            if form == "qwen3_coder":  # plain text has no length
                assert set(schema["required"]) <= set(arguments)
            else:
                jsonschema.validate(arguments, schema)
    assert finished or form in ("qwen3_coder", "gpt_oss")


@pytest.mark.parametrize("form", [f.name for f in FORMATS.values() if f.trigger and not f.bare])
def test_text_is_free_until_a_call_begins(form: str) -> None:
    """Behind the mark only a call of a known tool can follow."""
    described = FORMATS[form]
    grammar = tool_rules(described, TOOLS, {}, must=False, parallel=True)
    matcher = vocabulary().compile(grammar.text()).matcher()
    matcher.accept(letters("hi { "))
    assert matcher.allowed()[1]
    matcher.accept(letters(described.trigger))
    bits, may_end = matcher.allowed()
    assert not may_end
    assert len(ids_of(bits)) < 100


def letters(text: str) -> list[int]:
    """Ids of single bytes."""
    known = {raw: i for i, raw in enumerate(token_bytes())}
    return [known[bytes([byte])] for byte in text.encode()]


def test_special_tokens_are_written_by_id() -> None:
    grammar = tool_rules(FORMATS["hermes"], TOOLS, SPECIALS, must=True, parallel=False)
    bits, _ = vocabulary().compile(grammar.text()).matcher().allowed()
    assert ids_of(bits) == [3]


def test_only_strict_tools_need_schemas_that_can_be_enforced() -> None:
    schema = {"type": "object", "not": {"required": ["a"]}, "properties": {"a": {"type": "null"}}}
    loose = tool_rules(FORMATS["hermes"], [Tool("f", schema)], {}, must=True, parallel=False)
    assert vocabulary().compile(loose.text())
    tools = [Tool("f", schema, strict=True)]
    strict = tool_rules(FORMATS["hermes"], tools, {}, must=True, parallel=False)
    with pytest.raises(GrammarError, match="not"):
        vocabulary().compile(strict.text())


def test_samples_follow_their_grammars() -> None:
    """The calls that models are known to write are calls by the grammar."""
    tools = [Tool(name, schema) for name, schema in SCHEMAS.items()]
    grammar = tool_rules(FORMATS["hermes"], tools, {}, must=True, parallel=True)
    matcher = vocabulary().compile(grammar.text()).matcher()
    call = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'
    matcher.accept(letters(f"{call}\n{call}"))
    assert matcher.allowed()[1]
