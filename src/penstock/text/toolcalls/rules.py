"""Grammars of tool calls, from the descriptions of their formats."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.grammar import spec
from penstock.grammar.spec import Grammar, Specials
from penstock.text.toolcalls.formats import Arguments, Mark, Name, Object, Part, ToolFormat


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    parameters: Mapping[str, Any]
    """JSON schema of the arguments"""
    strict: bool = False


def tool_rules(
    form: ToolFormat, tools: Sequence[Tool], specials: Specials, *, must: bool, parallel: bool
) -> Grammar:
    """must: at least one call and no text; else free text, in which the format's mark begins a
    call. Raises GrammarError for schemas of strict tools that cannot be enforced."""
    if form.name == "gpt_oss":
        return _harmony(tools, specials)
    writer = _Writer(form, specials)
    calls = " | ".join(writer.call(i, tool, 0) for i, tool in enumerate(tools))
    writer.rules.append(f"call: {calls}\n")
    more = writer.text(form.between)
    rest = " ".join(f'" "? {writer.text(mark)}' for mark in form.open[1:])
    opening = f"{writer.text(form.open[0])} {rest}" if form.open else ""
    close = writer.text(form.close)
    again = f"({more} call)*" if parallel else ""
    if must:
        return writer.grammar(f"{opening} call {again} {close}")
    writer.rules.append(spec.up_to("head", form.trigger, specials))
    if form.open:
        section = f"head {rest} call {again} {close}"
    else:
        rests = " | ".join(writer.call(i, tool, 1) for i, tool in enumerate(tools))
        section = f"head ({rests})"
    writer.rules.append(f"free: {spec.ANY_TEXT}\n")
    return writer.grammar(f"({section})* free" if parallel else f"{section} | free")


def _harmony(tools: Sequence[Tool], specials: Specials) -> Grammar:
    """A call, after as much reasoning as the model likes."""
    rules, calls = list[str](), list[str]()
    for i, tool in enumerate(tools):
        begin = f"<|channel|>commentary to=functions.{tool.name} <|constrain|>json<|message|>"
        rules.append(_arguments(i, tool))
        calls.append(f"{spec.marks(begin, specials)} arguments_{i}")
    end = "<|end|>"
    rules.append(spec.up_to("analysis", end, specials))
    opening = spec.marks("<|channel|>analysis<|message|>", specials)
    again = spec.marks("<|start|>assistant", specials)
    return Grammar(f"answer: ({opening} analysis {again})? ({' | '.join(calls)})\n{''.join(rules)}")


def _arguments(index: int, tool: Tool) -> str:
    return spec.json_rule(f"arguments_{index}", dict(tool.parameters), lenient=not tool.strict)


class _Writer:
    def __init__(self, form: ToolFormat, specials: Specials) -> None:
        self.rules: list[str] = []
        self._form = form
        self._specials = specials
        self._written: set[int] = set()

    def grammar(self, answer: str) -> Grammar:
        return Grammar(f"answer: {answer}\n{''.join(self.rules)}")

    def text(self, mark: str) -> str:
        return spec.marks(mark, self._specials)

    def call(self, index: int, tool: Tool, first: int) -> str:
        """The parts of a call from the one numbered `first` on."""
        parts = (self._part(part, index, tool) for part in self._form.call[first:])
        return f"({' '.join(parts)})"

    def _part(self, part: Part, index: int, tool: Tool) -> str:
        if isinstance(part, Mark):
            return self.text(part.text)
        if isinstance(part, Name):
            return spec.text_literal(tool.name)
        if isinstance(part, Arguments):
            self._arguments(index, tool)
            return f"arguments_{index}"
        if isinstance(part, Object):
            self._arguments(index, tool)
            head = f'{{"name": {json.dumps(tool.name)}, "{part.arguments}": '
            return f'{spec.text_literal(head)} arguments_{index} "}}"'
        return self._parameters(part, index, tool)

    def _arguments(self, index: int, tool: Tool) -> None:
        if index not in self._written:
            self._written.add(index)
            self.rules.append(_arguments(index, tool))

    def _parameters(self, part: Any, index: int, tool: Tool) -> str:
        """One after the other in the schema's order; the optional ones may be missing."""
        properties = tool.parameters.get("properties") or {}
        required = tool.parameters.get("required") or ()
        found = []
        for number, (key, schema) in enumerate(properties.items()):
            rule = f"value_{index}_{number}"
            if rule not in self._written_rules():
                self.rules.append(self._value(rule, schema, part.close, tool.strict))
            one = f"{self.text(part.open + key + part.middle)} {rule}"
            if not self._closes_itself(schema):
                one += f" {self.text(part.close)}"
            found.append(f"({one})" if key in required else f"({one})?")
        return " ".join(found) or '""'

    def _written_rules(self) -> set[str]:
        return {rule.partition(":")[0].partition("[")[0] for rule in self.rules}

    def _closes_itself(self, schema: Any) -> bool:
        kind = schema.get("type") if isinstance(schema, Mapping) else None
        return kind == "string" and "enum" not in schema

    def _value(self, name: str, schema: Any, close: str, strict: bool) -> str:
        if not isinstance(schema, Mapping):
            return spec.json_rule(name, True, lenient=not strict)
        if self._closes_itself(schema):
            return spec.up_to(name, close, self._specials)
        if schema.get("type") == "string":
            texts = " | ".join(spec.text_literal(str(text)) for text in schema["enum"])
            return f"{name}: {texts}\n"
        return spec.json_rule(name, dict(schema), lenient=not strict)
