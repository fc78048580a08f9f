"""Types of body fields: what each accepts, in words for people and as JSON schema for tools.

Fields of `SamplingParams` pass through as they are: that class knows their types and ranges.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from penstock.core.slo import CLASSES
from penstock.errors import InvalidFieldError

Reader = Callable[[Any, str], Any]
"""(value, name) -> the value in our form; raises InvalidFieldError naming the field"""


@dataclass(frozen=True, slots=True)
class Kind:
    words: str
    """ends the sentence '<field> must be …'"""
    schema: dict[str, Any]
    read: Reader


def wrong(name: str, words: str, value: Any) -> InvalidFieldError:
    """The error for a value of a wrong type or form; it shows what came, cut short."""
    shown = repr(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return InvalidFieldError(f"{name} must be {words}; it is {shown}.", param=name)


def _plain(words: str, schema: dict[str, Any], accepts: Callable[[Any], bool]) -> Kind:
    def read(value: Any, name: str) -> Any:
        if not accepts(value):
            raise wrong(name, words, value)
        return value

    return Kind(words, schema, read)


def _passed(words: str, schema: dict[str, Any]) -> Kind:
    return Kind(words, schema, lambda value, _: value)


def is_int(value: Any) -> bool:
    """JSON's true is an int to Python; here it is not."""
    return isinstance(value, int) and not isinstance(value, bool)


def integer(low: int, high: int, words: str = "") -> Kind:
    words = words or f"an integer from {low} to {high}"
    schema = {"type": "integer", "minimum": low, "maximum": high}
    return _plain(words, schema, lambda v: is_int(v) and low <= v <= high)


def list_of(item: Kind, words: str) -> Kind:
    def read(value: Any, name: str) -> Any:
        if not isinstance(value, list):
            raise wrong(name, words, value)
        return [item.read(v, f"{name}[{i}]") for i, v in enumerate(value)]

    return Kind(words, {"type": "array", "items": item.schema}, read)


BOOL = _plain("true or false", {"type": "boolean"}, lambda v: isinstance(v, bool))
COUNT = integer(0, 2**31 - 1, "an integer, 0 or more")
TEXT = _plain("a string", {"type": "string"}, lambda v: isinstance(v, str))
SALT = _plain(
    "a string that is not empty and begins with no zero byte",
    {"type": "string", "minLength": 1, "pattern": "^[^\\u0000]"},
    lambda v: isinstance(v, str) and v != "" and v[0] != "\0",
)
SLO_CLASS = _plain(
    "interactive, agent or batch",
    {"type": "string", "enum": list(CLASSES)},
    lambda v: isinstance(v, str) and v in CLASSES,
)
OBJECT = _plain("an object", {"type": "object"}, lambda v: isinstance(v, dict))
METADATA = _plain(
    "an object of texts",
    {"type": "object", "additionalProperties": {"type": "string"}},
    lambda v: isinstance(v, dict) and all(isinstance(text, str) for text in v.values()),
)
OBJECTS = list_of(OBJECT, "a list of objects")
ANY = _passed("any value", {})
TOKENS = list_of(integer(0, 2**31 - 1, "a token id"), "a list of token ids")
ID_LISTS = _passed("a list of lists of token ids", {"type": "array", "items": TOKENS.schema})
TEXTS = list_of(TEXT, "a list of strings")
SECONDS = _plain(
    "a number of seconds above 0",
    {"type": "number", "exclusiveMinimum": 0},
    lambda v: (is_int(v) or isinstance(v, float)) and 0 < v <= 1e9,
)


def is_request_id(value: Any) -> bool:
    """It goes into a header and into logs: visible ASCII alone, and short."""
    ok = isinstance(value, str) and 0 < len(value) <= 128
    return ok and all("!" <= c <= "~" for c in value)


REQUEST_ID = _plain(
    "1 to 128 visible ASCII characters",
    {"type": "string", "minLength": 1, "maxLength": 128},
    is_request_id,
)

SAMPLED_NUMBER = _passed("a number", {"type": "number"})
SAMPLED_INT = _passed("an integer", {"type": "integer"})
SAMPLED_TOKENS = _passed(TOKENS.words, TOKENS.schema)
SAMPLED_TEXTS = _passed(TEXTS.words, TEXTS.schema)
STOP = _passed(
    "a string or a list of strings", {"anyOf": [{"type": "string"}, SAMPLED_TEXTS.schema]}
)
LOGIT_BIAS = _passed(
    "an object from token ids to numbers",
    {"type": "object", "additionalProperties": {"type": "number"}},
)


def _one_or_more(value: Any, name: str) -> list[str]:
    texts: list[str] = [value] if isinstance(value, str) else TEXTS.read(value, name)
    if not texts:
        raise InvalidFieldError(f"{name} is an empty list.", cure="Send a text.", param=name)
    return texts


ONE_OR_MORE = Kind(
    "a string or a list of strings",
    {"anyOf": [TEXT.schema, {**TEXTS.schema, "minItems": 1}]},
    _one_or_more,
)
TEXT_OR_OBJECTS = Kind(
    "a string or a list of objects",
    {"anyOf": [TEXT.schema, OBJECTS.schema]},
    lambda value, name: value if isinstance(value, str) else OBJECTS.read(value, name),
)
CHOICE = _plain(
    "a string or an object",
    {"anyOf": [{"type": "string"}, {"type": "object"}]},
    lambda v: isinstance(v, str | dict),
)


def _stream_options(value: Any, name: str) -> dict[str, bool]:
    options = {"include_usage": False, "continuous_usage_stats": False}
    # obfuscation pads events against eavesdroppers; it cannot change the answer
    known = [*options, "include_obfuscation"]
    for key, wanted in OBJECT.read(value, name).items():
        if key not in known:
            raise wrong(name, f"an object with the keys {', '.join(known)}", value)
        if wanted is not None and key in options:
            options[key] = BOOL.read(wanted, f"{name}.{key}")
    return options


STREAM_OPTIONS = Kind(
    "an object with include_usage, continuous_usage_stats",
    {"type": "object", "additionalProperties": {"type": "boolean"}},
    _stream_options,
)


def _prompt(value: Any, name: str) -> list[str | list[int]]:
    """All four legacy forms as a list of prompts, each a string or a list of ids."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise wrong(name, PROMPT.words, value)
    if not value:
        raise InvalidFieldError(f"{name} is an empty list.", cure="Send a prompt.", param=name)
    if is_int(value[0]):
        return [TOKENS.read(value, name)]
    item = TEXT if isinstance(value[0], str) else TOKENS
    prompts: list[str | list[int]] = [item.read(v, f"{name}[{i}]") for i, v in enumerate(value)]
    return prompts


PROMPT = Kind(
    "a string, a list of strings, a list of token ids or a list of such lists",
    {
        "anyOf": [
            TEXT.schema,
            TEXTS.schema,
            TOKENS.schema,
            {"type": "array", "items": TOKENS.schema},
        ]
    },
    _prompt,
)


def _messages(value: Any, name: str) -> list[dict[str, Any]]:
    """The list alone; what a message may hold is the affair of `text.chat`."""
    messages: list[dict[str, Any]] = list_of(OBJECT, MESSAGES.words).read(value, name)
    if not messages:
        raise InvalidFieldError(
            f"{name} is an empty list.",
            cure='Send at least one, as {"role": "user", "content": "…"}.',
            param=name,
        )
    return messages


MESSAGES = Kind(
    "a list of messages",
    {
        "type": "array",
        "minItems": 1,
        "items": {
            "type": "object",
            "required": ["role"],
            "properties": {"role": {"type": "string"}, "content": {}},
        },
    },
    _messages,
)
