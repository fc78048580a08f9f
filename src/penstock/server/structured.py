"""The body fields that ask for structured output: OpenAI's, vLLM's, and vLLM's older names."""

from __future__ import annotations

from typing import Any

from penstock.errors import InvalidFieldError
from penstock.server.fields import Parsed
from penstock.text.structured import StructuredOutputs, of_response_format

GUIDED = {
    "guided_json": "json",
    "guided_regex": "regex",
    "guided_choice": "choice",
    "guided_grammar": "grammar",
    "structural_tag": "structural_tag",
}
"""older fields and what they are called within `structured_outputs`"""


def structured_outputs(body: Parsed) -> StructuredOutputs | None:
    """What the body asks for; None for free text. Raises InvalidFieldError, also when it asks in
    two ways."""
    given = body.values.get  # not every endpoint has all of them
    asked: dict[str, StructuredOutputs] = {}
    if given("response_format") is not None:
        form = of_response_format(given("response_format"))
        if form is not None:
            asked["response_format"] = form
    if given("structured_outputs"):
        asked["structured_outputs"] = StructuredOutputs.read(given("structured_outputs"))
    for name, kind in GUIDED.items():
        if given(name) is not None:
            options: dict[str, Any] = {kind: given(name)}
            if kind == "json" and given("guided_whitespace_pattern") is not None:
                options["whitespace_pattern"] = given("guided_whitespace_pattern")
            asked[name] = StructuredOutputs(**options)
    if given("guided_whitespace_pattern") is not None and "guided_json" not in asked:
        raise InvalidFieldError(
            "guided_whitespace_pattern needs guided_json.", param="guided_whitespace_pattern"
        )
    if len(asked) > 1:
        names = " and ".join(asked)
        raise InvalidFieldError(
            f"{names} each ask for an answer of some form.", cure="Send one.", param=list(asked)[1]
        )
    return next(iter(asked.values()), None)
