"""Held while compiled; kept; limits; errors that name their cause."""

from __future__ import annotations

import time
from threading import Event
from typing import Any

import pytest

from penstock.core.request import Sampling, Submission
from penstock.engine.grammars import Grammars
from penstock.errors import (
    EngineError,
    GrammarError,
    GrammarLimitError,
    PenstockError,
    UnsupportedFieldError,
)
from penstock.grammar import spec
from tests.grammar.walks import vocabulary


class Slow:
    """A vocabulary that compiles when it is told to."""

    def __init__(self) -> None:
        self.go = Event()
        self.count = 0

    def compile(self, grammar: str) -> Any:
        self.go.wait(30)
        self.count += 1
        if grammar == "bug":
            raise RuntimeError("oops")
        return f"compiled {grammar}"


def asking(name: str, grammar: str) -> Submission:
    return Submission(name, [1], Sampling(grammar=grammar))


def settle(grammars: Grammars) -> list[Any]:
    for _ in range(3000):
        if found := grammars.settled():
            return found
        time.sleep(0.01)
    raise AssertionError("nothing was settled")


def test_held_until_it_is_compiled() -> None:
    slow = Slow()
    grammars = Grammars(lambda: slow)  # type: ignore[arg-type, return-value]
    assert grammars.admit(asking("free", ""))
    assert not grammars.admit(asking("a", "x"))
    assert not grammars.admit(asking("b", "x"))
    assert grammars.settled() == []
    slow.go.set()
    found = settle(grammars)
    while len(found) < 2:
        found += settle(grammars)
    assert sorted(found) == [("a", None), ("b", None)]
    assert grammars.admit(asking("c", "x"))
    assert grammars.compiled("x") == "compiled x"
    assert slow.count == 1
    grammars.close()


def test_too_late() -> None:
    slow = Slow()
    grammars = Grammars(lambda: slow, timeout_s=0.01)  # type: ignore[arg-type, return-value]
    assert not grammars.admit(asking("a", "x"))
    ((name, error),) = settle(grammars)
    assert name == "a"
    assert isinstance(error, GrammarLimitError)
    assert "--grammar-timeout-s" in str(error)
    slow.go.set()


def test_too_large() -> None:
    grammars = Grammars(vocabulary, max_bytes=10)
    with pytest.raises(GrammarLimitError, match="--grammar-max-bytes"):
        grammars.admit(asking("a", "x" * 11))


def test_the_least_recently_used_goes() -> None:
    slow = Slow()
    slow.go.set()
    grammars = Grammars(lambda: slow, keep=2)  # type: ignore[arg-type, return-value]
    for grammar in ("a", "b", "a", "c", "a"):
        grammars.compiled(grammar)
    assert slow.count == 3
    grammars.compiled("b")
    assert slow.count == 4


def refusal(grammars: Grammars, grammar: str) -> PenstockError:
    """Of a request, whether it was held for a moment or not."""
    try:
        assert not grammars.admit(asking("a", grammar))
    except PenstockError as error:
        return error
    ((_, found),) = settle(grammars)
    assert found is not None
    return found


def test_a_broken_grammar_is_refused_again_at_once() -> None:
    grammars = Grammars(vocabulary)
    broken = spec.regex("(").text()
    assert isinstance(refusal(grammars, broken), GrammarError)
    with pytest.raises(GrammarError):
        grammars.admit(asking("b", broken))


def test_errors_that_nobody_foresaw() -> None:
    slow = Slow()
    slow.go.set()
    grammars = Grammars(lambda: slow)  # type: ignore[arg-type, return-value]
    for _ in range(2):
        error = refusal(grammars, "bug")
        assert isinstance(error, EngineError)
        assert "RuntimeError: oops" in str(error)


def test_no_vocabulary() -> None:
    def missing() -> Any:
        raise UnsupportedFieldError("no llguidance")

    assert isinstance(refusal(Grammars(missing), "x"), UnsupportedFieldError)
