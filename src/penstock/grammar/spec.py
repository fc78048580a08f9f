"""What a client asks for as the text of a grammar, which is what crosses into the engine.

The text is llguidance's JSON around grammars in its dialect of Lark. Here it is only written;
whether it can be compiled shows in the engine. A rule `answer` is the whole of what is asked for;
`start` may put a thinking section before it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from penstock.errors import InvalidFieldError
from penstock.grammar.schema import check_schema

ANY_TEXT = "/(?s:.*)/"
GAP = r"/[ \t\r\n]{1,8}/"
"""white space between parts, of which models write little"""

WHITESPACE = r"[ \t\r\n]{1,40}"
"""where JSON allows any amount: enough for indented values, and an end for models that loop"""

Specials = Mapping[str, int]
"""Special tokens by their text: a grammar names those by id, for their text stands for nothing."""


@dataclass(frozen=True, slots=True)
class Grammar:
    rules: str
    """Lark rules, `answer` among them"""
    named: tuple[tuple[str, str], ...] = ()
    """whole Lark grammars that the rules refer to as @name"""

    def text(self, before: str = "", more: str = "", specials: Specials | None = None) -> str:
        """What the engine compiles. before: what stands before the answer, in terms of rules of
        its own (`more`). specials: see there."""
        lark = f"start: {before} answer\n{more}{self.rules}"
        texts = [lark, *(text for _, text in self.named)]
        if any(token in text for token in specials or () for text in texts):
            # What must come next is tokenized by the compiler, as the special token, which is not
            # what the text asks for: then let the model choose the tokens.
            lark = f'%llguidance {{"no_forcing": true}}\n{lark}'
        named = [{"name": name, "lark_grammar": text} for name, text in self.named]
        return json.dumps({"grammars": [{"lark_grammar": lark}, *named]})


def json_rule(
    name: str, schema: Any, whitespace: str | None = WHITESPACE, lenient: bool = False
) -> str:
    """A rule for the JSON values that a schema describes. whitespace: a regex for what may stand
    between tokens, None for nothing. lenient: what cannot be enforced is left out. Raises
    InvalidFieldError, GrammarError."""
    if schema is True:
        schema = {}
    if not isinstance(schema, dict):
        raise InvalidFieldError("A JSON schema must be an object.", cure="Send an object.")
    if not lenient:
        check_schema(schema)
    options: dict[str, Any] = {"whitespace_flexible": whitespace is not None, "lenient": lenient}
    if whitespace is not None:
        options["whitespace_pattern"] = whitespace
    return f"{name}: %json {json.dumps({**schema, 'x-guidance': options})}\n"


def json_schema(schema: Any, whitespace: str | None = WHITESPACE) -> Grammar:
    """A value that is valid by the schema."""
    return Grammar(json_rule("answer", schema, whitespace))


def json_object() -> Grammar:
    return json_schema({"type": "object"})


def regex(pattern: str) -> Grammar:
    """A text that the pattern matches as a whole."""
    return Grammar(f"answer: {regex_literal(pattern)}\n")


def choice(texts: Iterable[str]) -> Grammar:
    """One of these texts."""
    return Grammar(f"answer: {' | '.join(text_literal(text) for text in texts)}\n")


def lark(text: str) -> Grammar:
    """A grammar of the client's own, in Lark's notation, from its rule `start` on."""
    return Grammar("answer: @own\n", (("own", text),))


def text_literal(text: str) -> str:
    """A text in quotes."""
    return json.dumps(text, ensure_ascii=False)


def regex_literal(pattern: str) -> str:
    """A pattern between slashes. It matches as a whole anyway: ^ before and $ behind go."""
    pattern = pattern.removeprefix("^")
    if pattern.endswith("$") and not _escaped(pattern, len(pattern) - 1):
        pattern = pattern[:-1]
    parts = []
    for i, char in enumerate(pattern):
        if char == "\n":
            parts.append("\\n")
        elif char == "/" and not _escaped(pattern, i):
            parts.append("\\/")
        else:
            parts.append(char)
    return f"/{''.join(parts)}/"


def _escaped(pattern: str, at: int) -> bool:
    """Whether an odd number of backslashes stands before."""
    before = pattern[:at]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 1


def marks(text: str, specials: Specials) -> str:
    """A fixed text in terms of a rule; special tokens in it by their ids."""
    parts, plain, at = list[str](), "", 0
    while at < len(text):
        token = max((t for t in specials if text.startswith(t, at)), key=len, default="")
        if not token:
            plain, at = plain + text[at], at + 1
            continue
        if plain:
            parts.append(text_literal(plain))
        parts.append(f"<[{specials[token]}]>")
        plain, at = "", at + len(token)
    if plain:
        parts.append(text_literal(plain))
    return " ".join(parts)


def up_to(name: str, mark: str, specials: Specials) -> str:
    """A rule for any text that ends with the first `mark`."""
    at = next((i for i in range(len(mark)) if any(mark.startswith(t, i) for t in specials)), None)
    if at is None:
        return f"{name}[lazy]: {ANY_TEXT} {text_literal(mark)}\n"
    special = marks(mark[at:], specials)  # its first token is never a part of a text
    if not at:
        return f"{name}: {ANY_TEXT} {special}\n"
    terminal = name.upper()
    return f"{name}: {terminal} {special}\n{terminal}: {ANY_TEXT} {text_literal(mark[:at])}\n"
