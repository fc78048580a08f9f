"""Answers as models write them, one or more a format, and what they say."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from penstock.text.pieces import Answer, Piece, ToolCall, merged
from penstock.text.toolcalls.formats import FORMATS
from penstock.text.toolcalls.harmony import HarmonyParser
from penstock.text.toolcalls.parser import ToolParser

SCHEMAS: dict[str, Any] = {
    "get_weather": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
    },
    "add": {
        "type": "object",
        "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
        "required": ["a", "b"],
    },
}


class Sample(NamedTuple):
    form: str
    text: str
    content: str
    calls: list[tuple[str, str]]
    reasoning: str = ""


CITY = '{"city": "K\\u00f6ln {\\"x\\": [}", "days": 2}'
ADD = '{"a": 1, "b": [2, {"c": "]"}]}'
ONE, TWO = [("get_weather", CITY)], [("get_weather", CITY), ("add", ADD)]


def h(name: str, arguments: str, key: str = "arguments") -> str:
    return f'{{"name": "{name}", "{key}": {arguments}}}'


_V3 = "<｜tool▁call▁begin｜>function<｜tool▁sep｜>{}\n```json\n{}\n```<｜tool▁call▁end｜>"
_V31 = "<｜tool▁call▁begin｜>{}<｜tool▁sep｜>{}<｜tool▁call▁end｜>"
_CODER = "<tool_call>\n<function={}>\n{}</function>\n</tool_call>"
_DS = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")

SAMPLES = [
    Sample("hermes", f"<tool_call>\n{h('get_weather', CITY)}\n</tool_call>", "", ONE),
    Sample(
        "hermes",
        f"I'll look.\n<tool_call>\n{h('get_weather', CITY)}\n</tool_call>\n"
        f"<tool_call>{h('add', ADD)}</tool_call>",
        "I'll look.",
        TWO,
    ),
    Sample("hermes", f'<tool_call>{{"arguments": {ADD}, "name": "add"}}</tool_call>', "", TWO[1:]),
    Sample("hermes", '<tool_call>{"name": "add"}</tool_call>!', "!", [("add", "{}")]),
    Sample(
        "hermes",
        f'<tool_call>{{"id": 7, "name": "add", "arguments": {json.dumps(ADD)}}}</tool_call>',
        "",
        TWO[1:],
    ),
    Sample("hermes", "a <tool_call> b <tool", "a <tool_call> b <tool", []),
    Sample(
        "hermes", "<tool_call>{'name': 'x'}</tool_call>", "<tool_call>{'name': 'x'}</tool_call>", []
    ),
    Sample("hermes", '<tool_call>{"name": "add", "arg', '<tool_call>{"name": "add", "arg', []),
    Sample("hermes", '<tool_call>{"name": "add", "arguments": {"a": 1', "", [("add", '{"a": 1')]),
    Sample(
        "hermes",
        f"x <tool_call> <tool_call>{h('add', ADD)} oops</tool_call> y ",
        "x <tool_call> oops</tool_call> y ",
        TWO[1:],
    ),
    Sample("hermes", "Hello, world. \n", "Hello, world. \n", []),
    Sample("llama3", h("get_weather", CITY, "parameters"), "", ONE),
    Sample(
        "llama3",
        f"<|python_tag|>{h('get_weather', CITY, 'parameters')}; {h('add', ADD, 'parameters')}",
        "",
        TWO,
    ),
    Sample("llama3", 'So: {"name": 1}', 'So: {"name": 1}', []),
    Sample("llama3", '{"a": 1, "b": {"c": 2}} ', '{"a": 1, "b": {"c": 2}} ', []),
    Sample("mistral", f"[TOOL_CALLS] [{h('get_weather', CITY)}, {h('add', ADD)}]", "", TWO),
    Sample("mistral", f"Sure.[TOOL_CALLS][{h('get_weather', CITY)}]", "Sure.", ONE),
    Sample("mistral", "[TOOL_CALLS] none", "[TOOL_CALLS] none", []),
    Sample(
        "mistral_v11",
        f"[TOOL_CALLS]get_weather[ARGS]{CITY}[TOOL_CALLS]add[ARGS]{ADD}",
        "",
        TWO,
    ),
    Sample(
        "qwen3_coder",
        "Ok.\n\n"
        + _CODER.format(
            "get_weather",
            "<parameter=city>\n12\nlines <b>\n</parameter>\n<parameter=days>\n2\n</parameter>\n",
        )
        + "\n"
        + _CODER.format(
            "add", "<parameter=a>\n1.5\n</parameter>\n<parameter=b>\nx\n</parameter>\n"
        ),
        "Ok.",
        [("get_weather", '{"city": "12\\nlines <b>", "days": 2}'), ("add", '{"a": 1.5, "b": "x"}')],
    ),
    Sample("qwen3_coder", _CODER.format("add", ""), "", [("add", "{}")]),
    Sample("qwen3_coder", "<tool_call>\nno</tool_call>", "<tool_call>\nno</tool_call>", []),
    Sample(
        "deepseek_v3",
        f"Yes.{_DS[0]}{_V3.format('get_weather', CITY)}\n{_V3.format('add', ADD)}{_DS[1]}",
        "Yes.",
        TWO,
    ),
    Sample(
        "deepseek_v31",
        f"{_DS[0]}{_V31.format('get_weather', CITY)}{_V31.format('add', ADD)}{_DS[1]}",
        "",
        TWO,
    ),
    Sample(
        "deepseek_v31",
        f"{_DS[0]}{_V31.format('a b', ADD)}",
        f"{_DS[0]}{_V31.format('a b', ADD)}",
        [],
    ),
    Sample("json", h("get_weather", CITY), "", ONE),
    Sample("json", f" [{h('get_weather', CITY)}, {h('add', ADD)}] ", "", TWO),
    Sample("json", "[1, 2]", "[1, 2]", []),
    Sample("json", "No tool.", "No tool.", []),
    Sample(
        "gpt_oss",
        "<|channel|>analysis<|message|>Hm < m.<|end|><|start|>assistant<|channel|>commentary"
        f" to=functions.get_weather <|constrain|>json<|message|>{CITY}<|call|>",
        "",
        ONE,
        "Hm < m.",
    ),
    Sample(
        "gpt_oss",
        "<|channel|>commentary<|message|>First this.<|end|><|start|>assistant to=functions.add"
        f"<|channel|>commentary json<|message|>{ADD}<|call|><|start|>assistant<|channel|>final"
        "<|message|>Done.<|return|>",
        "First this.Done.",
        TWO[1:],
    ),
    Sample("gpt_oss", "plain < text", "plain < text", []),
]


class Counter:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> str:
        self.count += 1
        return f"call_{self.count}"


def parser_of(form: str) -> ToolParser | HarmonyParser:
    if form == "gpt_oss":
        return HarmonyParser(Counter())
    return ToolParser(FORMATS[form], SCHEMAS, Counter())


def parse(form: str, parts: list[str]) -> tuple[list[Piece], Answer]:
    """The pieces, joined, of an answer that comes in parts."""
    parser, pieces = parser_of(form), list[Piece]()
    for part in parts:
        pieces += parser.feed(part)
    pieces += parser.end()
    answer = Answer()
    answer.add(pieces)
    return merged(pieces), answer


def wanted(sample: Sample) -> Answer:
    calls = [ToolCall(f"call_{i + 1}", *call) for i, call in enumerate(sample.calls)]
    return Answer(sample.content, sample.reasoning, calls)
