"""How the answers to one chat are read, and what they must follow: one interface to reasoning
sections, tool calls and structured output.

    Reader (of a model)  .reading(prompt, …) ->  Reading (of a request)
    Reading.grammar(…) constrains it; Reading.parser() reads one choice: text in, pieces out
"""

from __future__ import annotations

import importlib.util
import secrets
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from penstock.core.request import Thinking
from penstock.errors import InvalidFieldError, UnsupportedFieldError
from penstock.grammar.spec import Grammar, Specials
from penstock.text.pieces import Content, Piece, merged
from penstock.text.reasoning import ReasoningFormat, ReasoningParser, Section
from penstock.text.toolcalls.formats import ToolFormat
from penstock.text.toolcalls.harmony import MARKS, HarmonyParser
from penstock.text.toolcalls.parser import ToolParser
from penstock.text.toolcalls.rules import Tool, tool_rules

MAX_TOOLS = 512


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The tools of a request; raises InvalidFieldError, UnsupportedFieldError.

    choice: "auto", "none", "required", or {"type": "function", "function": {"name": …}}.
    parallel: whether an answer may have several calls.
    """

    tools: Sequence[Mapping[str, Any]]
    """as OpenAI's: {"type": "function", "function": {"name", "description", "parameters"}}"""
    choice: str | Mapping[str, Any] = "auto"
    parallel: bool = True
    known: tuple[Tool, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "known", _read_tools(self.tools))
        self.wanted()

    def wanted(self) -> tuple[Tool, ...]:
        """The tools that may be called."""
        choice = self.choice
        if choice == "none":
            return ()
        if isinstance(choice, str):
            if choice not in ("auto", "required"):
                raise _wrong("tool_choice", "auto, none, required or one function by its name")
            if choice == "required" and not self.known:
                raise _wrong("tool_choice", "absent or none where there are no tools")
            return self.known
        function = choice.get("function")
        name = function.get("name") if isinstance(function, Mapping) else choice.get("name")
        found = tuple(tool for tool in self.known if tool.name == name)
        if choice.get("type") != "function" or not found:
            raise _wrong("tool_choice", "the name of one of the tools")
        return found

    @property
    def must(self) -> bool:
        return self.choice not in ("auto", "none")


def _read_tools(tools: Sequence[Mapping[str, Any]]) -> tuple[Tool, ...]:
    if len(tools) > MAX_TOOLS:
        raise _wrong("tools", f"at most {MAX_TOOLS}")
    found: dict[str, Tool] = {}
    for i, tool in enumerate(tools):
        where = f"tools[{i}]"
        function = tool.get("function") if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or tool.get("type", "function") != "function":
            raise _wrong(where, "an object of type function with a function")
        name, parameters = function.get("name"), function.get("parameters") or {"type": "object"}
        if not isinstance(name, str) or not name or any(c.isspace() or c in '"<>{}' for c in name):
            raise _wrong(f"{where}.function.name", "a name without white space and brackets")
        if not isinstance(parameters, dict):
            raise _wrong(f"{where}.function.parameters", "a JSON schema")
        if name in found:
            raise _wrong(f"{where}.function.name", "unlike the others")
        found[name] = Tool(name, {"type": "object", **parameters}, bool(function.get("strict")))
    return tuple(found.values())


def _wrong(name: str, rule: str) -> InvalidFieldError:
    return InvalidFieldError(f"{name} must be {rule}.", param=name.partition("[")[0])


NO_TOOLS = ToolUse(())


@dataclass(frozen=True, slots=True)
class Reading:
    """Of the answers to one prompt."""

    tools: ToolUse
    tool_format: ToolFormat | None
    reasoning: ReasoningFormat | None
    section: Section
    specials: Specials

    @property
    def keep(self) -> frozenset[str]:
        """Special tokens whose text the parser needs."""
        texts = list(MARKS) if self._harmony else []
        if self.reasoning is not None:
            texts += [self.reasoning.begin, self.reasoning.end]
        if self.tools.wanted() and self.tool_format is not None:
            form = self.tool_format
            texts += [*form.open, form.close, *(getattr(part, "text", "") for part in form.call)]
        return frozenset(token for token in self.specials if any(token in text for text in texts))

    @property
    def _harmony(self) -> bool:
        return self.reasoning is not None and self.reasoning.name == "gpt_oss"

    def grammar(self, asked: Grammar | None) -> str:
        """What an answer must follow; empty for anything. asked: structured output."""
        tools = self.tools.wanted()
        if asked is not None and tools and self.tools.must:
            raise InvalidFieldError(
                "An answer cannot be a tool call and of another form at once.",
                cure="Send tool_choice auto or none, or no response format.",
                param="tool_choice",
            )
        if asked is None and tools:
            asked = self._tool_grammar(tools)
        if asked is None:
            return ""
        if self._harmony:
            if tools and self.tools.must:
                return asked.text(specials=self.specials)
            return self._final(asked)
        before, rules = "", ""
        if self.reasoning is not None:
            before, rules = self.reasoning.rules(self.section, self.specials)
        return asked.text(before, rules, self.specials)

    def _final(self, asked: Grammar) -> str:
        """In harmony's channel for readers, after as much reasoning as the model likes."""
        from penstock.grammar import spec

        analysis, final = "<|channel|>analysis<|message|>", "<|channel|>final<|message|>"
        again = spec.marks("<|start|>assistant", self.specials)
        before = f"({spec.marks(analysis, self.specials)} thinking {again})?"
        rules = spec.up_to("thinking", "<|end|>", self.specials)
        return asked.text(f"{before} {spec.marks(final, self.specials)}", rules, self.specials)

    def _tool_grammar(self, tools: tuple[Tool, ...]) -> Grammar | None:
        form, must = self.tool_format, self.tools.must
        assert form is not None
        strict = any(tool.strict for tool in tools)
        if not must and (not form.trigger or form.bare or form.name == "gpt_oss"):
            if strict:
                raise UnsupportedFieldError(
                    f"strict tools need tool_choice required or a named one with {form.name}"
                    " calls, which begin without a mark that could be watched for.",
                    cure="Leave strict away, or say which tool is to be called.",
                    param="tools",
                )
            return None
        if not must and not strict and importlib.util.find_spec("llguidance") is None:
            return None
        return tool_rules(form, tools, self.specials, must=must, parallel=self.tools.parallel)

    def thinking(self, budget: int | None) -> Thinking | None:
        """Bounds of the thinking section. Raises UnsupportedFieldError."""
        if budget is None:
            return None
        ends = self.specials.get(self.reasoning.end) if self.reasoning else None
        if self.reasoning is None or ends is None:
            raise UnsupportedFieldError(
                "thinking_token_budget needs a model with thinking sections whose end is a token.",
                cure="Leave it away.",
                param="thinking_token_budget",
            )
        if self.section is Section.CLOSED:
            return None
        begin = None if self.section is Section.OPEN else self.specials.get(self.reasoning.begin)
        if begin is None and self.section is not Section.OPEN:
            raise UnsupportedFieldError(
                "thinking_token_budget needs a begin of thinking that is one token.",
                cure="Leave it away.",
                param="thinking_token_budget",
            )
        return Thinking(budget, ends, begin)

    def parser(self, new_id: Callable[[], str] | None = None) -> AnswerParser:
        """For one choice. new_id: makes calls' ids."""
        return AnswerParser(self, new_id or self._new_id)

    def _new_id(self) -> str:
        size = self.tool_format.id_size if self.tool_format else 0
        letters = string.ascii_letters + string.digits
        return (
            "".join(secrets.choice(letters) for _ in range(size))
            if size
            else f"call_{secrets.token_hex(12)}"
        )


class AnswerParser:
    """Text of one choice in, pieces out; the same pieces however the text is cut."""

    def __init__(self, reading: Reading, new_id: Callable[[], str]) -> None:
        self._harmony = HarmonyParser(new_id) if reading._harmony else None
        self._reasoning: ReasoningParser | None = None
        if reading.reasoning is not None and self._harmony is None:
            self._reasoning = ReasoningParser(reading.reasoning, reading.section)
        self._tools: ToolParser | None = None
        if reading.tools.wanted() and reading.tool_format is not None and self._harmony is None:
            schemas = {tool.name: tool.parameters for tool in reading.tools.known}
            self._tools = ToolParser(reading.tool_format, schemas, new_id)

    def feed(self, text: str) -> list[Piece]:
        if self._harmony is not None:
            return self._harmony.feed(text)
        if self._reasoning is None or self._reasoning.passed:
            return self._content(text)
        return self._told(self._reasoning.feed(text))

    def end(self) -> list[Piece]:
        """The rest: no further text will come."""
        if self._harmony is not None:
            return self._harmony.end()
        pieces = self._told(self._reasoning.end()) if self._reasoning is not None else []
        if self._tools is not None:
            pieces += self._tools.end()
        return merged(pieces)

    def _told(self, pieces: list[Piece]) -> list[Piece]:
        found: list[Piece] = []
        for piece in pieces:
            found += self._content(piece.text) if isinstance(piece, Content) else [piece]
        return found

    def _content(self, text: str) -> list[Piece]:
        if self._tools is not None:
            return self._tools.feed(text)
        return [Content(text)] if text else []
