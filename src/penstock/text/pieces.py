"""What an answer of a chat consists of: content, reasoning and tool calls, as typed pieces.

Text comes from the detokenizer; `toolcalls` and `reasoning` tell which part of it is what. Whoever
writes a protocol (chat completions, responses, messages) reads `TextDelta.pieces` of a stream, or
`CompletionOutput.answer` of a whole reply, and never the text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Content:
    """Text for the reader."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Text of a thinking section, its marks left away."""

    text: str


@dataclass(frozen=True, slots=True)
class CallBegin:
    """A tool call begins: the first piece of its index."""

    index: int
    """0 for the first call of an answer, then 1 …"""
    id: str
    """`call_…`, unique"""
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """More of a call's arguments, which are JSON text."""

    index: int
    text: str


Piece = Content | Reasoning | CallBegin | CallArguments


@dataclass(slots=True)
class ToolCall:
    id: str
    name: str
    arguments: str
    """JSON text; cut short when the answer was, and not checked where nothing constrained it"""


@dataclass(slots=True)
class Answer:
    """All pieces of one choice, put together."""

    content: str = ""
    reasoning: str = ""
    tool_calls: list[ToolCall] = field(default_factory=list)

    def add(self, pieces: Iterable[Piece]) -> None:
        for piece in pieces:
            if isinstance(piece, Content):
                self.content += piece.text
            elif isinstance(piece, Reasoning):
                self.reasoning += piece.text
            elif isinstance(piece, CallBegin):
                self.tool_calls.append(ToolCall(piece.id, piece.name, ""))
            else:
                self.tool_calls[piece.index].arguments += piece.text


def merged(pieces: Iterable[Piece]) -> list[Piece]:
    """The same pieces, neighbours of one kind joined and empty ones left away."""
    found: list[Piece] = []
    for piece in pieces:
        last = found[-1] if found else None
        if isinstance(piece, Content) and isinstance(last, Content):
            found[-1] = Content(last.text + piece.text)
        elif isinstance(piece, Reasoning) and isinstance(last, Reasoning):
            found[-1] = Reasoning(last.text + piece.text)
        elif (
            isinstance(piece, CallArguments)
            and isinstance(last, CallArguments)
            and last.index == piece.index
        ):
            found[-1] = CallArguments(piece.index, last.text + piece.text)
        elif isinstance(piece, CallBegin) or piece.text:
            found.append(piece)
    return found
