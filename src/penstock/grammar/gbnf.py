"""Grammars in GBNF, the notation of llama.cpp and XGrammar (`rule ::= …`), as Lark's."""

from __future__ import annotations

from penstock.errors import GrammarError, UnsupportedFieldError


def to_lark(text: str) -> str:
    """A grammar in Lark's notation from one in that or in GBNF's. Raises GrammarError, and
    UnsupportedFieldError without llguidance."""
    if "::=" not in text:
        return text
    try:
        from llguidance.gbnf_to_lark import gbnf_to_lark  # slow to import, and rarely needed
    except ImportError:
        raise missing() from None
    try:
        return gbnf_to_lark(text)
    except Exception as error:  # whatever it cannot read
        raise GrammarError(f"The grammar is no valid GBNF: {error}.", param="grammar") from None


def missing() -> UnsupportedFieldError:
    return UnsupportedFieldError(
        "Structured output needs the package llguidance, which is not installed.",
        cure="Install it (pip install llguidance) and restart the server.",
    )
