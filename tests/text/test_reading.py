"""Tools, reasoning and structured output of one request together."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.core.request import Thinking
from penstock.errors import InvalidFieldError, UnsupportedFieldError
from penstock.grammar import spec
from penstock.text.pieces import Answer, ToolCall
from penstock.text.reading import NO_TOOLS, Reading, ToolUse
from penstock.text.reasoning import FORMATS as REASONING
from penstock.text.reasoning import Section
from penstock.text.toolcalls.formats import FORMATS
from tests.grammar.walks import vocabulary
from tests.text.toolcalls.test_parser import random_splits

SPECIALS = {"<think>": 9, "</think>": 10, "<tool_call>": 3, "</tool_call>": 4, "<|im_end|>": 2}


def tool(name: str = "add", **more: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    return {"type": "function", "function": {"name": name, "parameters": schema, **more}}


def reading(
    use: ToolUse = NO_TOOLS,
    form: str | None = "hermes",
    reasoning: str | None = "think",
    section: Section = Section.MAYBE,
) -> Reading:
    formats = FORMATS[form] if form else None
    return Reading(use, formats, REASONING[reasoning] if reasoning else None, section, SPECIALS)


TEXT = (
    "<think>\nI should add.\n</think>\n\nLet me.\n<tool_call>\n"
    '{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
)


def test_all_parts_of_an_answer() -> None:
    wanted = Answer("Let me.", "I should add.", [ToolCall("call_1", "add", '{"a": 1}')])
    for parts in [[TEXT], *random_splits(TEXT, 60)]:
        parser, answer = reading(ToolUse([tool()])).parser(lambda: "call_1"), Answer()
        for part in parts:
            answer.add(parser.feed(part))
        answer.add(parser.end())
        assert answer == wanted


def test_without_tools_their_marks_are_content() -> None:
    for use in (NO_TOOLS, ToolUse([tool()], "none")):
        parser, answer = reading(use, reasoning=None).parser(), Answer()
        answer.add([*parser.feed(TEXT), *parser.end()])
        assert answer == Answer(TEXT)


def test_special_tokens_that_are_kept() -> None:
    assert reading(reasoning=None).keep == frozenset()
    assert reading().keep == {"<think>", "</think>"}
    assert reading(ToolUse([tool()])).keep == set(SPECIALS) - {"<|im_end|>"}


@pytest.mark.parametrize(
    ("use", "asked", "grammar"),
    [
        (NO_TOOLS, False, False),
        (NO_TOOLS, True, True),
        (ToolUse([tool()]), False, True),
        (ToolUse([tool()], "required"), False, True),
        (ToolUse([tool()], "none"), False, False),
        (ToolUse([tool()]), True, True),
        (
            ToolUse([tool("x"), tool()], {"type": "function", "function": {"name": "x"}}),
            False,
            True,
        ),
    ],
)
@pytest.mark.parametrize("section", Section)
def test_grammars(use: ToolUse, asked: bool, grammar: bool, section: Section) -> None:
    text = reading(use, section=section).grammar(spec.json_object() if asked else None)
    assert bool(text) == grammar
    if text:
        vocabulary().compile(text).matcher().allowed()


@pytest.mark.parametrize("use", [NO_TOOLS, ToolUse([tool()], "required")])
def test_grammars_of_harmony(use: ToolUse) -> None:
    asked = spec.choice(["yes"]) if use is NO_TOOLS else None
    read = Reading(use, FORMATS["gpt_oss"], REASONING["gpt_oss"], Section.MAYBE, {})
    matcher = vocabulary().compile(read.grammar(asked)).matcher()
    assert not matcher.allowed()[1]


def test_a_named_tool_is_the_only_one() -> None:
    use = ToolUse([tool("x"), tool("y")], {"type": "function", "function": {"name": "y"}})
    text = reading(use).grammar(None)
    assert ": y" in text.replace("\\", "").replace('"', "")
    assert ": x" not in text.replace("\\", "").replace('"', "")


def test_strict_tools_need_a_mark_or_a_choice() -> None:
    strict = ToolUse([tool(strict=True)])
    with pytest.raises(UnsupportedFieldError, match="strict"):
        reading(strict, "llama3").grammar(None)
    assert reading(ToolUse([tool()]), "llama3").grammar(None) == ""
    assert reading(ToolUse([tool(strict=True)], "required"), "llama3").grammar(None)


def test_an_answer_has_one_form() -> None:
    with pytest.raises(InvalidFieldError, match="tool_choice"):
        reading(ToolUse([tool()], "required")).grammar(spec.json_object())


@pytest.mark.parametrize(
    ("section", "wanted"),
    [
        (Section.MAYBE, Thinking(5, 10, 9)),
        (Section.OPEN, Thinking(5, 10, None)),
        (Section.CLOSED, None),
    ],
)
def test_a_thinking_budget(section: Section, wanted: Thinking | None) -> None:
    assert reading(section=section).thinking(5) == wanted
    assert reading(section=section).thinking(None) is None


@pytest.mark.parametrize("reasoning", [None, "mistral"])
def test_a_budget_needs_marks_that_are_tokens(reasoning: str | None) -> None:
    with pytest.raises(UnsupportedFieldError, match="thinking_token_budget"):
        reading(reasoning=reasoning).thinking(5)


@pytest.mark.parametrize(
    ("tools", "choice"),
    [
        ([], "required"),
        ([tool()], "sometimes"),
        ([tool()], {"type": "function", "function": {"name": "other"}}),
        ([tool()], {"type": "tool", "function": {"name": "add"}}),
        ([tool(), tool()], "auto"),
        ([tool("a b")], "auto"),
        ([tool("")], "auto"),
        ([{"type": "code"}], "auto"),
        ([tool(parameters=[1])], "auto"),
        (["add"], "auto"),
        ([tool(f"t{i}") for i in range(600)], "auto"),
    ],
)
def test_tools_of_wrong_forms(tools: list[Any], choice: Any) -> None:
    with pytest.raises(InvalidFieldError):
        ToolUse(tools, choice)


def test_ids_as_templates_want_them() -> None:
    ids = []
    for form, text in (("hermes", TEXT), ("mistral_v11", "[TOOL_CALLS]add[ARGS]{}")):
        parser, answer = reading(ToolUse([tool()]), form).parser(), Answer()
        answer.add([*parser.feed(text), *parser.end()])
        ids.append(answer.tool_calls[0].id)
    assert ids[0].startswith("call_")
    assert len(ids[1]) == 9
    assert ids[1].isalnum()
