"""How models write tool calls, one description a format.

A call is a sequence of parts. Read, white space between parts may differ; written under a grammar,
it is as it stands here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from penstock.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Mark:
    """A fixed text."""

    text: str


@dataclass(frozen=True, slots=True)
class Name:
    """The tool's name, up to the next mark."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """A JSON object."""


@dataclass(frozen=True, slots=True)
class Object:
    """A JSON object with the tool's name and its arguments, which are an object within."""

    arguments: str = "arguments"
    """key of the arguments when written; read, those of all formats are known"""


@dataclass(frozen=True, slots=True)
class Parameters:
    """Arguments one by one, values as plain text: what is no string is JSON."""

    open: str
    middle: str
    close: str


Part = Mark | Name | Arguments | Object | Parameters


@dataclass(frozen=True, slots=True)
class ToolFormat:
    name: str
    call: tuple[Part, ...]
    open: tuple[str, ...] = ()
    """marks before the first call; none: each call begins with its own"""
    between: str = "\n"
    close: str = ""
    """behind the last call"""
    bare: str = ""
    """characters that begin a call at the very start of an answer, without a mark"""
    id_size: int = 0
    """length of calls' ids where templates demand one; 0: OpenAI's form"""
    hints: tuple[str, ...] = ()
    """texts that a chat template has when its model writes this format"""

    @property
    def trigger(self) -> str:
        """The mark at which free text ends; empty when there is none."""
        if self.open:
            return self.open[0]
        first = self.call[0] if self.call else None
        return first.text if isinstance(first, Mark) else ""


_DEEPSEEK = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")

FORMATS: dict[str, ToolFormat] = {
    form.name: form
    for form in (
        ToolFormat("gpt_oss", (), hints=("<|channel|>",)),
        ToolFormat(
            "deepseek_v3",
            (
                Mark("<｜tool▁call▁begin｜>function<｜tool▁sep｜>"),
                Name(),
                Mark("\n```json\n"),
                Arguments(),
                Mark("\n```<｜tool▁call▁end｜>"),
            ),
            *((_DEEPSEEK[0],), "\n", _DEEPSEEK[1]),
            hints=(_DEEPSEEK[0], "```json"),
        ),
        ToolFormat(
            "deepseek_v31",
            (
                Mark("<｜tool▁call▁begin｜>"),
                Name(),
                Mark("<｜tool▁sep｜>"),
                Arguments(),
                Mark("<｜tool▁call▁end｜>"),
            ),
            *((_DEEPSEEK[0],), "", _DEEPSEEK[1]),
            hints=(_DEEPSEEK[0],),
        ),
        ToolFormat(
            "qwen3_coder",
            (
                Mark("<tool_call>\n<function="),
                Name(),
                Mark(">\n"),
                Parameters("<parameter=", ">\n", "\n</parameter>\n"),
                Mark("</function>\n</tool_call>"),
            ),
            hints=("<tool_call>", "<function="),
        ),
        ToolFormat(
            "mistral_v11",
            (Mark("[TOOL_CALLS]"), Name(), Mark("[ARGS]"), Arguments()),
            between="",
            id_size=9,
            hints=("[TOOL_CALLS]", "[ARGS]"),
        ),
        ToolFormat(
            "mistral",
            (Object(),),
            *(("[TOOL_CALLS]", "["), ", ", "]"),
            id_size=9,
            hints=("[TOOL_CALLS]",),
        ),
        ToolFormat(
            "hermes",
            (Mark("<tool_call>\n"), Object(), Mark("\n</tool_call>")),
            hints=("<tool_call>",),
        ),
        ToolFormat(
            "llama3",
            (Object("parameters"),),
            *(("<|python_tag|>",), "; "),
            bare="{",
            hints=("<|python_tag|>",),
        ),
        ToolFormat("json", (Object(),), between=", ", bare="{["),
    )
}
"""By name; `detect` asks them in this order."""

NAMES = ("auto", "none", *FORMATS)


def detect(templates: Iterable[str]) -> ToolFormat | None:
    """The format that these chat templates teach; `json` when they show tools in no known way, None
    when they show none."""
    text = "".join(templates)
    if "tools" not in text:
        return None
    for form in FORMATS.values():
        if form.hints and all(hint in text for hint in form.hints):
            return form
    return FORMATS["json"]


def choose(name: str, templates: Iterable[str]) -> ToolFormat | None:
    """Of --tool-call-parser. Raises ConfigError."""
    if name == "auto":
        return detect(templates)
    if name not in NAMES:
        raise ConfigError(
            f"There is no tool call format {name!r}.",
            cure=f"Known are {', '.join(NAMES)}.",
            param="tool_call_parser",
        )
    return FORMATS.get(name)
