"""Structural tags in both notations."""

from __future__ import annotations

import re
from typing import Any

import pytest

from penstock.errors import GrammarError, InvalidFieldError
from penstock.grammar.tags import structural_tag
from tests.grammar.walks import token_bytes, vocabulary, walk

SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}
TAG = {
    "type": "tag",
    "begin": "<f>",
    "content": {"type": "json_schema", "json_schema": SCHEMA},
    "end": "</f>",
}


def texts(tag: Any, count: int = 2) -> set[str]:
    compiled = vocabulary().compile(structural_tag(tag, {}).text())
    return {text for seed in range(count) if (text := walk(compiled, seed, 30)) is not None}


@pytest.mark.parametrize(
    "tag",
    [
        {
            "type": "structural_tag",
            "structures": [{"begin": "<f>", "schema": SCHEMA, "end": "</f>"}],
            "triggers": ["<f"],
        },
        {"format": {"type": "triggered_tags", "triggers": ["<f"], "tags": [TAG]}},
    ],
)
def test_free_text_until_a_trigger(tag: Any) -> None:
    compiled = vocabulary().compile(structural_tag(tag, {}).text())
    known = {raw: i for i, raw in enumerate(token_bytes())}
    matcher = compiled.matcher()
    matcher.accept([known[b"h"], known[b"i"]])
    _, may_end = matcher.allowed()
    assert may_end
    matcher.accept([known[b"<"], known[b"f"]])
    bits, may_end = matcher.allowed()
    assert not may_end
    allowed = {token_bytes()[i] for i in range(len(token_bytes())) if bits[i // 32] >> (i % 32) & 1}
    assert all(raw.startswith(b">") for raw in allowed)


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ({"type": "const_string", "value": "ab"}, "ab"),
        ({"type": "regex", "pattern": "[xy]z"}, "[xy]z"),
        (TAG, r"<f>\{[^{}]*\}</f>"),
        ({"type": "tag", "begin": "(", "content": {"type": "any_text"}, "end": ")"}, r"\([^)]*\)"),
        (
            {
                "type": "sequence",
                "elements": [
                    {"type": "const_string", "value": "a"},
                    {
                        "type": "or",
                        "elements": [
                            {"type": "const_string", "value": "b"},
                            {"type": "const_string", "value": "c"},
                        ],
                    },
                ],
            },
            "a[bc]",
        ),
        (
            {
                "type": "triggered_tags",
                "triggers": ["<f"],
                "tags": [TAG],
                "at_least_one": True,
                "stop_after_first": True,
            },
            r"(?s:.*)<f>\{[^{}]*\}</f>",
        ),
    ],
)
def test_formats(form: Any, pattern: str) -> None:
    for text in texts({"format": form}):
        assert re.fullmatch(pattern, text, re.DOTALL)


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        ([], "must be an object"),
        ({}, "needs formats"),
        ({"format": {"type": "const_string"}}, "const_string of a wrong form"),
        ({"format": {"type": "regex", "pattern": 3}}, "regex of a wrong form"),
        ({"format": {"type": "triggered_tags", "triggers": ["x"], "tags": [TAG]}}, "no trigger"),
    ],
)
def test_wrong_forms(tag: Any, words: str) -> None:
    with pytest.raises(InvalidFieldError, match=words):
        structural_tag(tag, {})


@pytest.mark.parametrize(
    "form",
    [
        {"type": "tags_with_separator"},
        {"type": "triggered_tags", "triggers": ["<f"], "tags": [TAG], "excludes": ["x"]},
    ],
)
def test_what_is_not_supported_is_named(form: Any) -> None:
    with pytest.raises(GrammarError, match=r"tags_with_separator|excludes"):
        structural_tag({"format": form}, {})
