"""Reads tool calls from text that comes piece by piece, by the description of their format.

However the text is cut, the pieces say the same: each decision waits for as much text as settles
it. A call begins, for the reader, once its name is known and its arguments begin; what turns out
not to be a call before that is content, with nothing lost.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from penstock.text.pieces import CallArguments, CallBegin, Content, Piece, merged
from penstock.text.toolcalls.formats import (
    Mark,
    Name,
    Object,
    Parameters,
    ToolFormat,
)
from penstock.text.toolcalls.scan import ValueScan

MAX_NAME = 256
"""characters of a tool's name, or of a key"""
_ARGUMENTS = ("arguments", "parameters")

Schemas = Mapping[str, Mapping[str, Any]]
"""Schemas of the arguments by tool."""


class ToolParser:
    """Feed text, then `end` once.

    schemas: tell which plain-text parameters are strings. new_id: makes calls' ids.
    """

    def __init__(self, form: ToolFormat, schemas: Schemas, new_id: Callable[[], str]) -> None:
        self._form = form
        self._schemas = schemas
        self._new_id = new_id
        self._buffer = ""
        """text that nothing was decided about"""
        self._raw = ""
        """what has been read of a call that has not begun yet, with the white space before it"""
        self._kept = 0
        """characters at the start of _raw that are content if it is no call"""
        self._pieces: list[Piece] = []
        self._step: Callable[[], bool] = self._text
        self._said = False
        """whether there was any content"""
        self._last_said = True
        """whether the last that was told was content, and no call"""
        self._calls = 0
        self._list = False
        """within a bare JSON list of calls"""
        self._clear()

    def _clear(self) -> None:
        """For the next call."""
        self._part = 0
        self._opened = 1
        """marks before the first call that have been read"""
        self._name: str | None = None
        self._begun = False
        self._scan: ValueScan | None = None
        self._object = "open"
        self._key = ""
        self._early = ""
        """arguments that came before the name, or as a JSON string"""
        self._count = 0
        """parameters so far"""

    def feed(self, text: str) -> list[Piece]:
        """What this text makes certain."""
        self._buffer += text
        while self._step():
            pass
        pieces, self._pieces = self._pieces, []
        return merged(pieces)

    def end(self) -> list[Piece]:
        """The rest: no further text will come."""
        while self._step != self._text and not self._begun:
            if self._step == self._after:
                self._step = self._text
            else:
                self._fail()
            while self._step():
                pass
        # White space that only stands behind calls belongs to them.
        if self._step == self._text and (self._buffer.strip() or self._last_said):
            self._say(self._buffer)
        pieces, self._pieces = self._pieces, []
        return merged(pieces)

    # Free text. A step returns whether to go on; False waits for more text.

    def _text(self) -> bool:
        trigger = self._form.trigger.strip()
        if self._form.bare and not self._said and not self._calls:
            start = self._buffer.lstrip()
            if not start:
                return False
            if start[0] in self._form.bare:
                self._start(len(self._buffer) - len(start), 0)
                self._list = start[0] == "["
                if self._list:
                    self._take(1)
                return True
        if not trigger:
            if not self._last_said and not self._buffer.strip():
                return False
            self._say(self._buffer)
            self._buffer = ""
            return False
        at = self._buffer.find(trigger)
        if at >= 0:
            before = self._buffer[:at].rstrip()
            self._say(before)
            self._buffer = self._buffer[len(before) :]
            self._start(at - len(before), len(trigger))
            if self._form.open:
                self._step = self._opening
            else:
                self._part = 1
            return True
        keep = _may_begin(self._buffer, trigger)
        cut = len(self._buffer[: len(self._buffer) - keep].rstrip())
        self._say(self._buffer[:cut])
        self._buffer = self._buffer[cut:]
        return False

    def _start(self, gap: int, mark: int) -> None:
        """A call may begin behind `gap` white space and a mark of such lengths."""
        self._clear()
        self._raw, self._kept = "", gap + (mark or 1)
        self._take(gap + mark)
        self._step = self._parts

    def _say(self, text: str) -> None:
        if text:
            self._pieces.append(Content(text))
            self._said = self._said or bool(text.strip())
            self._last_said = True

    def _take(self, count: int) -> str:
        """Move `count` characters from the buffer to what has been read."""
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        self._raw += taken
        return taken

    def _skip_space(self) -> str:
        """Take white space; the character behind it, empty when it is not there yet."""
        start = self._buffer.lstrip()
        self._take(len(self._buffer) - len(start))
        return start[:1]

    def _fail(self) -> bool:
        """This is no call, or a call that does not end as it should: go on as free text."""
        if not self._begun:
            self._say(self._raw[: self._kept])
            self._buffer = self._raw[self._kept :] + self._buffer
        self._raw, self._list = "", False
        self._clear()
        self._step = self._text
        self._said = True
        return True

    # Within a call

    def _opening(self) -> bool:
        """The marks before the first call, after the trigger."""
        if self._opened == len(self._form.open):
            self._step = self._parts
            return True
        done = self._mark(self._form.open[self._opened])
        if done:
            self._opened += 1
        return done is not False

    def _parts(self) -> bool:
        if self._part == len(self._form.call):
            self._raw, self._begun = "", False
            self._step = self._after
            return True
        part = self._form.call[self._part]
        if isinstance(part, Mark):
            done = self._mark(part.text.strip())
        elif isinstance(part, Name):
            done = self._read_name()
        elif isinstance(part, Object):
            done = self._read_object()
        elif isinstance(part, Parameters):
            done = self._read_parameters(part)
        else:
            done = self._read_arguments()
        if done:
            self._part += 1
        return done is not False

    def _mark(self, wanted: str) -> bool | None:
        """True: read. False: wait. None: it failed."""
        start = self._buffer.lstrip()
        if start.startswith(wanted):
            self._take(len(self._buffer) - len(start) + len(wanted))
            return True
        if wanted.startswith(start):
            return False
        self._fail()
        return None

    def _read_name(self) -> bool | None:
        following = self._form.call[self._part + 1]
        assert isinstance(following, Mark)
        mark = following.text.strip()
        end = self._buffer.find(mark)
        name = self._buffer[:end].strip() if 0 <= end <= MAX_NAME else ""
        if name and not any(char in name for char in ' \n"{}<>'):
            self._take(end)
            self._name = name
            return True
        if end < 0 and len(self._buffer) <= MAX_NAME + len(mark):
            return False
        self._fail()
        return None

    def _begin(self) -> None:
        assert self._name is not None
        self._pieces.append(CallBegin(self._calls, self._new_id(), self._name))
        self._calls += 1
        self._begun, self._last_said = True, False

    def _write(self, text: str) -> None:
        self._pieces.append(CallArguments(self._calls - 1, text))

    def _read_arguments(self) -> bool | None:
        if self._scan is None:
            first = self._skip_space()
            if not first:
                return False
            if first != "{":
                self._fail()
                return None
            self._begin()
            self._scan = ValueScan()
        self._write(self._take(self._scan.feed(self._buffer)))
        return self._scan.done

    # A JSON object with name and arguments

    def _read_object(self) -> bool | None:
        while True:
            step = {
                "open": self._object_open,
                "key": self._object_key,
                "colon": self._object_colon,
                "value": self._object_value,
            }[self._object]
            done = step()
            if done is not True:
                return done
            if self._object == "end":
                return self._object_end()

    def _object_open(self) -> bool | None:
        first = self._skip_space()
        if first == "{":
            self._take(1)
            self._object = "key"
            return True
        return self._waits_or_fails(first)

    def _waits_or_fails(self, first: str) -> bool | None:
        if not first:
            return False
        self._fail()
        return None

    def _object_key(self) -> bool | None:
        first = self._skip_space()
        if first == "}":
            self._take(1)
            self._object = "end"
        elif first == ",":
            self._take(1)
        elif first == '"':
            key = self._string()
            if not isinstance(key, str):
                return key
            self._key, self._object = key, "colon"
        else:
            return self._waits_or_fails(first)
        return True

    def _string(self) -> str | bool | None:
        """A short JSON string at the start of the buffer."""
        scan = ValueScan()
        size = scan.feed(self._buffer)
        try:
            text = json.loads(self._buffer[:size], strict=False) if scan.done else None
        except ValueError:
            text = None
        if scan.done and isinstance(text, str) and size <= MAX_NAME:
            self._take(size)
            return text
        if not scan.done and size <= MAX_NAME:
            return False
        self._fail()
        return None

    def _object_colon(self) -> bool | None:
        first = self._skip_space()
        if first != ":":
            return self._waits_or_fails(first)
        self._take(1)
        self._object = "value"
        return True

    def _object_value(self) -> bool | None:
        if self._scan is None:
            first = self._skip_space()
            if not first:
                return False
            if self._key == "name":
                return self._object_name(first)
            self._scan = ValueScan()
            if self._key in _ARGUMENTS and self._name is not None and first != '"':
                self._begin()
        text = self._take(self._scan.feed(self._buffer))
        if self._key in _ARGUMENTS:
            if self._begun:
                self._write(text)
            else:
                self._early += text
        if not self._scan.done:
            return False
        self._scan, self._object = None, "key"
        self._tell_early()
        return True

    def _object_name(self, first: str) -> bool | None:
        if first != '"':
            self._fail()
            return None
        name = self._string()
        if not isinstance(name, str):
            return name
        if not name:
            self._fail()
            return None
        self._name, self._object = name, "key"
        self._tell_early()
        return True

    def _tell_early(self) -> None:
        """Arguments that waited for the name, or for the end of a string that holds them."""
        if self._early and self._name is not None and not self._begun:
            self._begin()
            self._write(_unquoted(self._early))

    def _object_end(self) -> bool | None:
        if self._name is None:
            self._fail()
            return None
        if not self._begun:
            self._begin()
            self._write("{}")
        return True

    # Parameters as plain text

    def _read_parameters(self, part: Parameters) -> bool | None:
        if not self._begun:
            self._begin()
        following = self._form.call[self._part + 1]
        assert isinstance(following, Mark)
        close, mark = part.close.strip(), following.text.strip()
        while True:
            start = self._buffer.lstrip()
            if start.startswith(mark):
                self._write("}" if self._count else "{}")
                return True
            if not start.startswith(part.open):
                if part.open.startswith(start) or mark.startswith(start):
                    return False
                self._write("}" if self._count else "{}")
                self._fail()
                return None
            end = start.find(close)
            if end < 0:
                return False
            key, _, value = start[len(part.open) : end].partition(part.middle.strip())
            self._take(len(self._buffer) - len(start) + end + len(close))
            value = value.removeprefix("\n").removesuffix("\n")
            lead = ", " if self._count else "{"
            self._write(f"{lead}{json.dumps(key.strip())}: {self._json(key.strip(), value)}")
            self._count += 1

    def _json(self, key: str, value: str) -> str:
        """The value of a parameter as JSON, by the tool's schema where it tells."""
        properties = self._schemas.get(self._name or "", {}).get("properties", {})
        described = properties.get(key) if isinstance(properties, Mapping) else None
        kind = described.get("type") if isinstance(described, Mapping) else None
        if kind != "string":
            try:
                json.loads(value)
                return value.strip()
            except ValueError:
                pass
        return json.dumps(value, ensure_ascii=False)

    # Behind a call

    def _after(self) -> bool:
        """Another call, the end of the list, or text."""
        start = self._buffer.lstrip()
        space = len(self._buffer) - len(start)
        separator, close = self._form.between.strip(), self._form.close.strip()
        if self._list:
            close = "]"
        listed = bool(self._form.open or self._form.bare)
        if listed and separator and start.startswith(separator):
            self._start(space, len(separator))
        elif close and start.startswith(close):
            self._buffer = start[len(close) :]
            self._list, self._step = False, self._text
        elif not start or (close and close.startswith(start)):
            return False
        elif listed and not separator and _begins(start, self._form):
            self._start(space, 0)
        elif listed and not separator and _may_begin_call(start, self._form):
            return False
        else:
            self._step = self._text
        return True


def _begins(text: str, form: ToolFormat) -> bool:
    first = form.call[0]
    return isinstance(first, Mark) and text.startswith(first.text.strip())


def _may_begin_call(text: str, form: ToolFormat) -> bool:
    first = form.call[0]
    return isinstance(first, Mark) and first.text.strip().startswith(text)


def _may_begin(text: str, mark: str) -> int:
    """Length of the longest end of `text` that begins `mark`."""
    for size in range(min(len(mark) - 1, len(text)), 0, -1):
        if text.endswith(mark[:size]):
            return size
    return 0


def _unquoted(arguments: str) -> str:
    """Arguments may come as a JSON string that holds them."""
    if arguments.startswith('"'):
        try:
            return str(json.loads(arguments, strict=False))
        except ValueError:
            return arguments
    return arguments
