from __future__ import annotations

import sys

import pytest

from penstock.errors import GrammarError, UnsupportedFieldError
from penstock.grammar.gbnf import to_lark


def test_notations() -> None:
    lark = 'start: "a"'
    assert to_lark(lark) == lark
    assert "start:" in to_lark('root ::= "a" | b\nb ::= [0-9]+')


def test_broken_gbnf() -> None:
    with pytest.raises(GrammarError, match="no valid GBNF"):
        to_lark("root ::= (")


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance.gbnf_to_lark", None)
    with pytest.raises(UnsupportedFieldError, match="llguidance"):
        to_lark('root ::= "a"')
