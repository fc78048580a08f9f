"""Incremental twins of the `tokenizers` library's decoders: tokens in, text out as soon as it is
certain.

A decoder is the list that `tokenizer.json` names under `decoder`. The library runs it over all
tokens at once; here each stage takes one token at a time and passes on what can no longer change,
so that the joined output of `feed` and `end` equals the library's `decode` of all tokens.
"""

from __future__ import annotations

import codecs
import copy
import re
from collections.abc import Callable
from typing import Any, Protocol

from penstock.errors import TokenizerError


class Stage(Protocol):
    def feed(self, token: str) -> list[str]:
        """The tokens that are certain now that `token` is known."""
        ...

    def end(self) -> list[str]:
        """What was held back, now that nothing follows."""
        ...


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-in for each byte (Radford et al. 2019), reversed."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(0x100 + i): byte for i, byte in enumerate(others)})
    return alphabet


BYTE_OF_CHAR = _byte_alphabet()
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def alphabet_bytes(token: str) -> bytes:
    """The bytes of a byte-level token; a token with a foreign character stands for itself."""
    try:
        return bytes([BYTE_OF_CHAR[char] for char in token])
    except KeyError:
        return token.encode()


def byte_of(token: str) -> int | None:
    """The byte that a fallback token such as `<0xE2>` stands for."""
    match = _BYTE_TOKEN.fullmatch(token)
    return int(match[1], 16) if match else None


class ByteLevel:
    """Bytes to text; the bytes of an unfinished character wait for the rest."""

    def __init__(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: str) -> list[str]:
        return [self._utf8.decode(alphabet_bytes(token))]

    def end(self) -> list[str]:
        return [self._utf8.decode(b"", final=True)]


class ByteFallback:
    """Runs of byte tokens to text. The library replaces every byte of a run that is not valid as
    a whole, so a run waits until another token ends it."""

    def __init__(self) -> None:
        self._run = bytearray()

    def feed(self, token: str) -> list[str]:
        byte = byte_of(token)
        if byte is not None:
            self._run.append(byte)
            return []
        return [*self.end(), token]

    def end(self) -> list[str]:
        if not self._run:
            return []
        text = self.whole_run() or "\N{REPLACEMENT CHARACTER}" * len(self._run)
        self._run.clear()
        return [text]

    def whole_run(self) -> str:
        """The text of the run that waits; empty while it is not valid."""
        try:
            return self._run.decode()
        except UnicodeDecodeError:
            return ""


class Metaspace:
    """`▁` to a space; those of the first token vanish unless the tokenizer never prepends one."""

    def __init__(self, mark: str, strip_first: bool) -> None:
        self._mark = mark
        self._strip = strip_first

    def feed(self, token: str) -> list[str]:
        space = "" if self._strip else " "
        self._strip = False
        return [token.replace(self._mark, space)]

    def end(self) -> list[str]:
        return []


class Each:
    """A change of one token that looks at nothing else."""

    def __init__(self, change: Callable[[str], str]) -> None:
        self._change = change

    def feed(self, token: str) -> list[str]:
        return [self._change(token)]

    def end(self) -> list[str]:
        return []


class StripStart:
    """Removes at most `most` characters `char` from the very start of the text."""

    def __init__(self, char: str, most: int) -> None:
        self._char = char
        self._left = most

    def feed(self, token: str) -> list[str]:
        kept = _strip_start(token, self._char, self._left)
        self._left = 0 if kept else self._left - len(token)
        return [kept]

    def end(self) -> list[str]:
        return []


class Spaced:
    """What the library does without a decoder: tokens joined by spaces."""

    def __init__(self) -> None:
        self._gap = ""

    def feed(self, token: str) -> list[str]:
        gap, self._gap = self._gap, " "
        return [gap + token]

    def end(self) -> list[str]:
        return []


def _strip_start(token: str, char: str, most: int) -> str:
    count = 0
    while count < min(most, len(token)) and token[count] == char:
        count += 1
    return token[count:]


class Decoder:
    """One request's chain of stages."""

    def __init__(self, stages: list[Stage]) -> None:
        self._stages = stages

    def feed(self, token: str) -> str:
        """The text that is certain once `token` is known."""
        return self._through([token], 0)

    def end(self) -> str:
        """The rest of the text. The decoder must not be fed afterwards."""
        text = ""
        for i, stage in enumerate(self._stages):
            text += self._through(stage.end(), i + 1)
        return text

    def preview(self) -> str:
        """What `end` would add now, if that is whole characters; else nothing.

        Not empty only while a run of byte tokens waits that a further byte could still undo.
        """
        waiting = any(s.whole_run() for s in self._stages if isinstance(s, ByteFallback))
        return copy.deepcopy(self).end() if waiting else ""

    def _through(self, tokens: list[str], first: int) -> str:
        for stage in self._stages[first:]:
            tokens = [out for token in tokens for out in stage.feed(token)]
        return "".join(tokens)


def compile_decoder(spec: dict[str, Any] | None) -> Callable[[], Decoder]:
    """A factory of decoders for the `decoder` section of a `tokenizer.json`.

    Raises TokenizerError for a kind of decoder, or an order of them, that cannot be run
    incrementally here.
    """
    if spec is None:
        return lambda: Decoder([Spaced()])
    makers: list[Callable[[], Stage]] = []
    fused = False
    for part in _flatten(spec):
        if part["type"] == "Fuse":
            fused = True
            continue
        makers.append(_maker(part, fused))
        fused = fused or part["type"] == "ByteLevel"
    return lambda: Decoder([make() for make in makers])


def _flatten(spec: dict[str, Any]) -> list[dict[str, Any]]:
    if spec["type"] != "Sequence":
        return [spec]
    return [part for child in spec["decoders"] for part in _flatten(child)]


def _maker(part: dict[str, Any], fused: bool) -> Callable[[], Stage]:
    kind = part["type"]
    if kind == "Strip" and part["stop"] == 0:
        char, most = part["content"], part["start"]
        if fused:
            return lambda: StripStart(char, most)
        return lambda: Each(lambda token: _strip_start(token, char, most))
    if not fused:
        if kind == "ByteLevel":
            return ByteLevel
        if kind == "ByteFallback":
            return ByteFallback
        if kind == "Metaspace":
            mark = part["replacement"]
            strip = part.get("prepend_scheme", "always") != "never"
            return lambda: Metaspace(mark, strip)
        if kind == "Replace" and "String" in part["pattern"]:
            old, new = part["pattern"]["String"], part["content"]
            return lambda: Each(lambda token: token.replace(old, new))
    where = " behind Fuse" if fused else ""
    raise TokenizerError(
        f"The tokenizer's decoder {part}{where} is not supported.",
        cure="Known are ByteLevel, ByteFallback, Fuse, Metaspace, Replace (of a string) and Strip"
        " (from the start).",
    )
