"""Ids to text deltas, one request at a time, and the stop strings that end them.

Two things are held back: what the decoder cannot know yet (bytes of an unfinished character), and
text that may turn out to begin a stop string.
"""

from __future__ import annotations

from collections.abc import Sequence

from penstock.text.tokenizer import Tokenizer


class Detokenizer:
    """Feed ids with `push`, close with `end`; the joined deltas equal `Tokenizer.decode` of all
    ids that were taken (cut at the stop string, where one matched).

    The result does not depend on how the ids were cut into pushes. Of several stop strings the
    one that is complete first wins, of those the longest.

    keep: special tokens that are never skipped.
    include_stop: the text goes up to and including the stop string.
    min_tokens: a stop string that is complete within so many tokens is not one.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        skip_special_tokens: bool = True,
        keep: frozenset[str] = frozenset(),
        stop: Sequence[str] = (),
        include_stop: bool = False,
        min_tokens: int = 0,
    ) -> None:
        self._tokenizer = tokenizer
        self._decoder = tokenizer.new_decoder()
        self._skip_special = skip_special_tokens
        self._keep = keep
        self._stops = tuple(stop)
        self._include_stop = include_stop
        self._min_tokens = min_tokens
        self._held = ""
        """certain text that may begin a stop string"""
        self.num_tokens = 0
        """ids taken so far; after a match: up to the one that completed it"""
        self.matched: str | None = None
        """the stop string that ended the text"""

    def push(self, ids: Sequence[int]) -> str:
        """The text that these ids make certain. Ids past a match are not taken."""
        text = ""
        for token_id in ids:
            if self.matched is not None:
                break
            self.num_tokens += 1
            text += self._push_one(token_id)
        return text

    def end(self) -> str:
        """The rest of the text: no further ids will come."""
        if self.matched is not None:
            return ""
        text = self._take(self._decoder.end())
        if self.matched is None:
            text, self._held = text + self._held, ""
        return text

    def _push_one(self, token_id: int) -> str:
        token = self._tokenizer.id_to_token(token_id)
        skip = self._skip_special and token not in self._keep
        if token is None or (skip and self._tokenizer.is_special(token)):
            return ""
        text = self._take(self._decoder.feed(token))
        if self._stops and self.matched is None and (preview := self._decoder.preview()):
            text += self._match_preview(preview)
        return text

    def _take(self, new: str) -> str:
        """Add certain text; return what cannot belong to a stop string, or the cut at a match."""
        if not self._stops or not new:
            return new
        old, text = len(self._held), self._held + new
        match = self._first_match(text, old)
        if match is not None:
            return self._cut(text, match)
        keep = self._longest_start(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def _match_preview(self, preview: str) -> str:
        """End at a match in text that only further ids, which will then not come, could undo."""
        text = self._held + preview
        match = self._first_match(text, len(self._held))
        return "" if match is None else self._cut(text, match)

    def _cut(self, text: str, match: tuple[int, str]) -> str:
        end, self.matched = match
        self._held = ""
        return text[: end if self._include_stop else end - len(self.matched)]

    def _first_match(self, text: str, old: int) -> tuple[int, str] | None:
        """(end, stop) of the match that is complete first; only ends behind `old` count, as what
        was complete earlier was passed over because of min_tokens."""
        if self.num_tokens <= self._min_tokens:
            return None
        found = []
        for stop in self._stops:
            start = text.find(stop, max(0, old - len(stop) + 1))
            if start >= 0:
                found.append((start + len(stop), -len(stop), stop))
        if not found:
            return None
        end, _, stop = min(found)
        return end, stop

    def _longest_start(self, text: str) -> int:
        """Length of the longest end of `text` that begins a stop string."""
        longest = 0
        for stop in self._stops:
            for size in range(min(len(stop) - 1, len(text)), longest, -1):
                if text.endswith(stop[:size]):
                    longest = size
                    break
        return longest
