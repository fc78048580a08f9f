"""Reasoning sections of answers: their marks, where they stand, and their text told apart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from penstock.errors import ConfigError
from penstock.grammar import spec
from penstock.grammar.spec import Specials
from penstock.text.pieces import Content, Piece, Reasoning
from penstock.text.toolcalls.harmony import ANALYSIS


class Section(Enum):
    """What an answer begins with, as its prompt tells."""

    OPEN = "open"
    """within reasoning: the prompt opened it"""
    MAYBE = "maybe"
    """it may open a section itself, at its very start"""
    CLOSED = "closed"
    """no reasoning: the prompt closed it"""


@dataclass(frozen=True, slots=True)
class ReasoningFormat:
    name: str
    begin: str
    end: str
    always: bool = False
    """an answer begins within reasoning though neither prompt nor answer says so"""

    def section(self, prompt: str) -> Section:
        """prompt: the rendered text, whose end tells."""
        text = prompt.rstrip()
        if text.endswith(self.begin):
            return Section.OPEN
        if text.endswith(self.end):
            return Section.CLOSED
        return Section.OPEN if self.always else Section.MAYBE

    def rules(self, section: Section, specials: Specials) -> tuple[str, str]:
        """How a grammar begins, and the rules that this needs (see Grammar.text)."""
        if section is Section.CLOSED:
            return "", ""
        rules = f"{spec.up_to('thinking', self.end, specials)}gap: {spec.GAP}\n"
        if section is Section.OPEN:
            return "thinking gap?", rules
        return f"({spec.marks(self.begin, specials)} thinking gap?)?", rules


FORMATS: dict[str, ReasoningFormat] = {
    form.name: form
    for form in (
        ReasoningFormat("gpt_oss", ANALYSIS, "<|end|>"),
        ReasoningFormat("mistral", "[THINK]", "[/THINK]"),
        ReasoningFormat("seed", "<seed:think>", "</seed:think>"),
        ReasoningFormat("think", "<think>", "</think>"),
        ReasoningFormat("deepseek_r1", "<think>", "</think>", always=True),
    )
}
NAMES = ("auto", "none", *FORMATS)


def detect(templates: Iterable[str]) -> ReasoningFormat | None:
    """The format whose marks these chat templates write."""
    text = "".join(templates)
    if "<|channel|>" in text:
        return FORMATS["gpt_oss"]
    return next(
        (form for form in FORMATS.values() if form.end in text and form.begin in text), None
    )


def choose(name: str, templates: Iterable[str]) -> ReasoningFormat | None:
    """Of --reasoning-parser. Raises ConfigError."""
    if name == "auto":
        return detect(templates)
    if name not in NAMES:
        raise ConfigError(
            f"There is no reasoning format {name!r}.",
            cure=f"Known are {', '.join(NAMES)}.",
            param="reasoning_parser",
        )
    return FORMATS.get(name)


class ReasoningParser:
    """Tells reasoning from what follows it, however the text is cut. White space around a section
    belongs to its marks."""

    def __init__(self, form: ReasoningFormat, section: Section) -> None:
        self._form = form
        self._section: Section | None = section
        self._buffer = ""
        self._began = False
        """whether some reasoning was told"""
        self._ended = False
        """whether there was a section, whose gap to the rest is left away"""

    @property
    def passed(self) -> bool:
        """All further text is no reasoning, and comes as it is."""
        return self._section is None and not self._ended

    def feed(self, text: str) -> list[Piece]:
        self._buffer += text
        pieces: list[Piece] = []
        if self._section is Section.CLOSED:
            self._section = None
        if self._section is Section.MAYBE:
            self._look_for_begin()
        if self._section is Section.OPEN:
            self._reason(pieces)
        if self._section is None:
            self._pass(pieces)
        return pieces

    def end(self) -> list[Piece]:
        text, self._buffer = self._buffer, ""
        if not text:
            return []
        if self._section is Section.OPEN:
            return [Reasoning(text.rstrip())]
        return [] if self._ended else [Content(text)]

    def _look_for_begin(self) -> None:
        start = self._buffer.lstrip()
        if start.startswith(self._form.begin):
            self._buffer = start[len(self._form.begin) :]
            self._section = Section.OPEN
        elif not self._form.begin.startswith(start):
            self._section = None

    def _reason(self, pieces: list[Piece]) -> None:
        end = self._form.end
        at = self._buffer.find(end)
        if at >= 0:
            text, rest = self._buffer[:at].rstrip(), self._buffer[at + len(end) :]
            self._section, self._ended = None, True
        else:
            held = next(
                (k for k in range(len(end) - 1, 0, -1) if self._buffer.endswith(end[:k])), 0
            )
            text = self._buffer[: len(self._buffer) - held].rstrip()
            rest = self._buffer[len(text) :]
        if not self._began:
            text = text.lstrip()
        self._buffer = rest
        if text:
            self._began = True
            pieces.append(Reasoning(text))

    def _pass(self, pieces: list[Piece]) -> None:
        if self._ended:
            self._buffer = self._buffer.lstrip()
        if self._buffer:
            self._ended = False
            pieces.append(Content(self._buffer))
            self._buffer = ""
