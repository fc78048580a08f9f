"""Structural tags: free text in which certain marks begin something that must follow a grammar.

Both notations are understood, vLLM's older one and the newer one of XGrammar:

    {"structures": [{"begin": …, "schema": …, "end": …}], "triggers": [text, …]}
    {"format": {"type": "triggered_tags" | "tag" | "sequence" | "or" | "const_string" |
                "json_schema" | "regex" | "any_text", …}}
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from penstock.errors import GrammarError, InvalidFieldError
from penstock.grammar import spec
from penstock.grammar.spec import Grammar, Specials


def structural_tag(tag: Any, specials: Specials) -> Grammar:
    """Raises InvalidFieldError for another form, GrammarError for what is not supported."""
    if not isinstance(tag, Mapping):
        raise _wrong("must be an object")
    if "structures" in tag:
        tags = [
            {"type": "tag", "content": {"type": "json_schema", "json_schema": s.get("schema")}, **s}
            for s in tag["structures"]
        ]
        top: Any = {"type": "triggered_tags", "triggers": tag.get("triggers"), "tags": tags}
    else:
        top = tag.get("format")
    writer = _Writer(specials)
    body = writer.write(top)
    return Grammar(f"answer: {body}\n{''.join(writer.rules)}")


def _wrong(rule: str) -> InvalidFieldError:
    return InvalidFieldError(f"structural_tag: it {rule}.", param="structural_tag")


class _Writer:
    """Turns formats into expressions over rules that it adds."""

    def __init__(self, specials: Specials) -> None:
        self.rules: list[str] = []
        self._specials = specials
        self._numbers = itertools.count()

    def write(self, form: Any) -> str:
        """The expression of one format."""
        if not isinstance(form, Mapping) or not isinstance(form.get("type"), str):
            raise _wrong("needs formats, objects with a type")
        kind = form["type"]
        try:
            if kind == "const_string":
                return spec.marks(_text(form["value"]), self._specials) or '""'
            if kind == "json_schema":
                name = f"json_{next(self._numbers)}"
                schema = form["json_schema"]
                self.rules.append(spec.json_rule(name, {} if schema is None else schema))
                return name
            if kind == "regex":
                return self._rule(spec.regex_literal(_text(form["pattern"])))
            if kind == "any_text":
                return self._rule(spec.ANY_TEXT)
            if kind == "sequence":
                return " ".join(f"({self.write(item)})" for item in form["elements"])
            if kind == "or":
                return " | ".join(f"({self.write(item)})" for item in form["elements"])
            if kind == "tag":
                return self._tag(form)
            if kind == "triggered_tags":
                return self._triggered(form)
        except (KeyError, TypeError) as error:
            raise _wrong(f"has a {kind} of a wrong form ({error})") from None
        raise GrammarError(
            f"structural_tag: a format of type {kind!r} is not supported.",
            cure="Use json_schema, regex, const_string, any_text, sequence, or, tag or"
            " triggered_tags.",
            param="structural_tag",
        )

    def _rule(self, body: str) -> str:
        name = f"part_{next(self._numbers)}"
        self.rules.append(f"{name}: {body}\n")
        return name

    def _tag(self, form: Mapping[str, Any], behind: str = "") -> str:
        """behind: what of its beginning has been written already."""
        begin = spec.marks(_text(form["begin"]).removeprefix(behind), self._specials)
        return f"{begin} {self._inner(form)}".strip()

    def _inner(self, form: Mapping[str, Any]) -> str:
        content, end = form["content"], _text(form["end"])
        if content.get("type") == "any_text" and end:
            name = f"text_{next(self._numbers)}"
            self.rules.append(spec.up_to(name, end, self._specials))
            return name
        return f"({self.write(content)}) {spec.marks(end, self._specials)}"

    def _triggered(self, form: Mapping[str, Any]) -> str:
        known = {"type", "triggers", "tags", "at_least_one", "stop_after_first"}
        if not known.issuperset(form):
            raise GrammarError(
                f"structural_tag: {', '.join(sorted({*form} - known))} is not supported.",
                cure="Leave it out.",
                param="structural_tag",
            )
        groups: dict[str, list[str]] = {}
        for tag in form["tags"]:
            begin = _text(tag["begin"])
            trigger = next((t for t in form["triggers"] if t and begin.startswith(t)), None)
            if trigger is None:
                raise _wrong(f"has a tag that no trigger begins ({begin!r})")
            groups.setdefault(trigger, []).append(self._tag(tag, trigger))
        calls = []
        for trigger, bodies in groups.items():
            head = f"head_{next(self._numbers)}"
            self.rules.append(spec.up_to(head, trigger, self._specials))
            calls.append(f"{head} ({' | '.join(bodies)})")
        rest = self._rule(spec.ANY_TEXT)
        some, last = form.get("at_least_one"), form.get("stop_after_first")
        if last:
            one = f"({' | '.join(calls)})"
            return one if some else f"{one} | {rest}"
        return f"({' | '.join(calls)}){'+' if some else '*'} {rest}"


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no string")
    return value
