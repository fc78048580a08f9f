"""What an answer must look like, as clients ask for it (vLLM's names and OpenAI's)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from penstock.errors import InvalidFieldError
from penstock.grammar import spec
from penstock.grammar.gbnf import to_lark
from penstock.grammar.spec import Grammar, Specials
from penstock.grammar.tags import structural_tag

MAX_CHOICES = 10_000


@dataclass(frozen=True)
class StructuredOutputs:
    """One of `json` … `structural_tag`; raises InvalidFieldError when it is none or several."""

    json: dict[str, Any] | bool | str | None = None
    """a JSON schema, or its text"""
    json_object: bool | None = None
    """any JSON object"""
    regex: str | None = None
    """matches the whole answer"""
    choice: list[str] | None = None
    """the answer is one of these"""
    grammar: str | None = None
    """in Lark's or GBNF's notation"""
    structural_tag: dict[str, Any] | str | None = None
    """free text with marks that begin something structured (`grammar.tags`)"""
    whitespace_pattern: str | None = None
    """a regex for the white space between the tokens of JSON"""
    disable_any_whitespace: bool = False
    """JSON without any"""

    def __post_init__(self) -> None:
        given = [name for name in _KINDS if getattr(self, name) not in (None, False)]
        if len(given) != 1:
            raise InvalidFieldError(
                f"structured_outputs must have one of {', '.join(_KINDS)}; it has "
                f"{' and '.join(given) or 'none'}.",
                param="structured_outputs",
            )
        for name in ("regex", "grammar", "whitespace_pattern"):
            if not isinstance(getattr(self, name), str | None):
                raise _wrong(name, "a string")
        choice = self.choice
        ok = choice is None or (isinstance(choice, list) and 0 < len(choice) <= MAX_CHOICES)
        if not ok or not all(isinstance(text, str) for text in choice or ()):
            raise _wrong("choice", f"a list of 1 to {MAX_CHOICES} strings")
        if self.whitespace_pattern is not None and self.disable_any_whitespace:
            raise _wrong("whitespace_pattern", "absent beside disable_any_whitespace")

    def to_grammar(self, specials: Specials) -> Grammar:
        """specials: tokens that a text cannot spell. Raises InvalidFieldError, GrammarError."""
        if self.regex is not None:
            return spec.regex(self.regex)
        if self.choice is not None:
            return spec.choice(self.choice)
        if self.grammar is not None:
            return spec.lark(to_lark(self.grammar))
        if self.structural_tag is not None:
            return structural_tag(_parsed(self.structural_tag, "structural_tag"), specials)
        schema = {"type": "object"} if self.json_object else _parsed(self.json, "json")
        if self.disable_any_whitespace:
            return spec.json_schema(schema, None)
        return spec.json_schema(schema, self.whitespace_pattern or spec.WHITESPACE)

    @classmethod
    def read(cls, value: Any) -> StructuredOutputs:
        """From an object as clients send it, or itself. Raises InvalidFieldError."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            raise InvalidFieldError(
                "structured_outputs must be an object.", param="structured_outputs"
            )
        known = {field.name for field in fields(cls)}
        given = {key: v for key, v in value.items() if v is not None and v is not False}
        for key in given:
            if key not in known:
                raise InvalidFieldError(
                    f"structured_outputs has no field {key!r}.",
                    cure=f"Known are {', '.join(sorted(known))}.",
                    param="structured_outputs",
                )
        return cls(**given)


_KINDS = ("json", "json_object", "regex", "choice", "grammar", "structural_tag")


def of_response_format(form: Any) -> StructuredOutputs | None:
    """OpenAI's response_format; None for text. Raises InvalidFieldError."""
    kind = form.get("type") if isinstance(form, Mapping) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return StructuredOutputs(json_object=True)
    if kind == "structural_tag":
        return StructuredOutputs(structural_tag=dict(form))
    if kind == "json_schema":
        described = form.get("json_schema")
        if not isinstance(described, Mapping) or not isinstance(described.get("schema"), dict):
            raise InvalidFieldError(
                "response_format.json_schema must be an object with a schema.",
                param="response_format",
            )
        return StructuredOutputs(json=described["schema"])
    raise InvalidFieldError(
        "response_format must have the type text, json_object, json_schema or structural_tag.",
        param="response_format",
    )


def _parsed(value: Any, name: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise _wrong(name, f"valid JSON ({error})") from None


def _wrong(name: str, rule: str) -> InvalidFieldError:
    return InvalidFieldError(f"structured_outputs.{name} must be {rule}.", param=name)
