"""Where a JSON value ends in text that comes piece by piece."""

from __future__ import annotations

import re

_IN_STRING = re.compile(r'["\\]')
_OUTSIDE = re.compile(r'["{}\[\]]')
_SCALAR_END = re.compile(r"[,}\]\s]")


class ValueScan:
    """Looks at brackets and strings alone: whether the value is valid JSON is not its affair."""

    def __init__(self) -> None:
        self.done = False
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._scalar = False

    def feed(self, text: str) -> int:
        """How many characters of `text` belong to the value; `done` when it ends there. The value
        begins with the first character ever fed. A number or word ends before what follows it."""
        at = 0
        while at < len(text) and not self.done:
            if self._escaped:
                self._escaped, at = False, at + 1
            elif self._in_string:
                at = self._string(text, at)
            elif self._scalar or (not self._depth and text[at] not in '"{['):
                found = _SCALAR_END.search(text, at)
                self._scalar, self.done = True, found is not None
                return found.start() if found else len(text)
            else:
                at = self._brackets(text, at)
        return at

    def _string(self, text: str, at: int) -> int:
        found = _IN_STRING.search(text, at)
        if found is None:
            return len(text)
        if found[0] == "\\":
            self._escaped = True
        else:
            self._in_string, self.done = False, not self._depth
        return found.end()

    def _brackets(self, text: str, at: int) -> int:
        found = _OUTSIDE.search(text, at)
        if found is None:
            return len(text)
        if found[0] == '"':
            self._in_string = True
        else:
            self._depth += 1 if found[0] in "{[" else -1
            self.done = not self._depth
        return found.end()
