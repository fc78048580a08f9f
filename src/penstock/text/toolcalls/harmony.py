"""gpt-oss's format (harmony): an answer is a row of messages, each with a channel.

    <|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>commentary
    to=functions.NAME <|constrain|>json<|message|>{…}<|call|>

`analysis` is reasoning, what goes to a function is a call, all else is content.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from penstock.text.pieces import CallArguments, CallBegin, Content, Piece, Reasoning, merged

MESSAGE = "<|message|>"
MARKS = ("<|channel|>", "<|start|>", "<|end|>", "<|call|>", "<|return|>", "<|constrain|>", MESSAGE)
_ENDS = re.compile(r"<\|(?:end|call|return|start|channel)\|>")
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")
_RECIPIENT = re.compile(r"to=(?:functions\.)?([^\s<]+)")
ANALYSIS = "<|channel|>analysis<|message|>"
"""what opens a section of reasoning"""
_LONGEST = max(map(len, MARKS))


class HarmonyParser:
    """Feed text, then `end` once. See ToolParser."""

    def __init__(self, new_id: Callable[[], str]) -> None:
        self._new_id = new_id
        self._buffer = ""
        self._body: Callable[[str], Piece] | None = Content
        """makes a piece of a message's text; None: its header is being read"""
        self._in_call = False
        self._calls = 0

    def feed(self, text: str) -> list[Piece]:
        self._buffer += text
        pieces = list[Piece]()
        while self._step(pieces):
            pass
        return merged(pieces)

    def end(self) -> list[Piece]:
        text, self._buffer = self._buffer, ""
        if self._body is not None:
            broken = self._in_call and any(mark.startswith(text) for mark in MARKS)
            return [] if broken else merged([self._body(text)])
        if not text or _ENDS.fullmatch(text.strip()):
            return []  # the mark that ended the answer
        return merged([Content(text)])

    def _step(self, pieces: list[Piece]) -> bool:
        """Take what is certain from the buffer; whether to go on."""
        if self._body is None:
            header, mark, rest = self._buffer.partition(MESSAGE)
            if not mark:
                return False
            self._buffer = rest
            self._open(header, pieces)
            return True
        found = _ENDS.search(self._buffer)
        if found:
            pieces.append(self._body(self._buffer[: found.start()]))
            self._buffer = self._buffer[found.start() :]
            self._body = None
            return True
        tail = self._buffer.rfind("<|", max(0, len(self._buffer) - _LONGEST))
        if tail < 0:
            tail = len(self._buffer) - self._buffer.endswith("<")
        pieces.append(self._body(self._buffer[:tail]))
        self._buffer = self._buffer[tail:]
        return False

    def _open(self, header: str, pieces: list[Piece]) -> None:
        channel, recipient = _CHANNEL.search(header), _RECIPIENT.search(header)
        self._in_call = recipient is not None
        if recipient:
            index = self._calls
            self._calls += 1
            pieces.append(CallBegin(index, self._new_id(), recipient[1]))
            self._body = lambda text: CallArguments(index, text)
        else:
            self._body = Reasoning if channel and channel[1] == "analysis" else Content
