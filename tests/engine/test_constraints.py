"""Masks of slots: rebuilt from ids, bans that yield, thinking that ends, errors of one row."""

from __future__ import annotations

from dataclasses import replace

import pytest

from penstock.core.request import Sampling, Thinking
from penstock.engine.constraints import Constraints
from penstock.engine.grammars import Grammars
from penstock.errors import GrammarError
from penstock.grammar import spec
from tests.grammar.walks import SIZE, ids_of, token_bytes, vocabulary

END, OTHER_END = 2, 0
ID = {raw: i for i, raw in enumerate(token_bytes())}
FREE = Sampling(stop_ids=(END,))


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    return Grammars(vocabulary)


def saying(*texts: str, **sampling: object) -> Sampling:
    grammar = spec.choice(texts).text()
    return replace(Sampling(grammar=grammar, stop_ids=(END, OTHER_END)), **sampling)  # type: ignore[arg-type]


def allowed(constraints: Constraints, slot: int = 0) -> set[bytes] | None:
    """Of one slot: the bytes of what may come; None when anything may."""
    masks = constraints.masks([slot])
    if masks is None:
        return None
    assert not masks.errors
    return {token_bytes()[i] for i in ids_of(masks.bits[0])}


def ids(text: str) -> list[int]:
    return [ID[char.encode()] for char in text]


def test_only_the_constrained_slots_have_masks(grammars: Grammars) -> None:
    constraints = Constraints(grammars, SIZE, 4)
    constraints.enter(0, FREE, [5], 1)
    assert constraints.masks([0]) is None
    constraints.enter(2, saying("a"), [5], 1)
    masks = constraints.masks([0, 2])
    assert masks is not None
    assert (masks.rows, masks.errors) == ([1], {})
    constraints.enter(2, FREE, [5], 1)
    assert constraints.masks([0, 2]) is None


def test_from_token_to_token_and_rebuilt(grammars: Grammars) -> None:
    constraints = Constraints(grammars, SIZE, 2)
    constraints.enter(0, saying("ab", "ac"), [7, 7], 2)
    assert allowed(constraints) == {b"a", b"ab", b"ac"}
    constraints.accept([0], ids("a"))
    assert allowed(constraints) == {b"b", b"c"}
    constraints.enter(1, saying("ab", "ac"), [7, 7, *ids("a")], 2)
    assert allowed(constraints, 1) == {b"b", b"c"}
    constraints.accept([0], ids("b"))
    assert allowed(constraints) == {token_bytes()[END], token_bytes()[OTHER_END]}
    constraints.accept([0], [END])
    assert allowed(constraints) is None


@pytest.mark.parametrize(
    ("sampling", "output", "wanted"),
    [
        (saying("a", "ax", min_tokens=3), "a", {b"x"}),
        (saying("a", min_tokens=3), "a", {token_bytes()[END], token_bytes()[OTHER_END]}),
        (saying("a", "ax", late_stop_ids=(END,)), "a", {b"x", token_bytes()[OTHER_END]}),
        (saying("q", "z", bad_words=((ID[b"q"],),)), "", {b"z"}),
        (saying("qz", "qk", bad_words=((ID[b"q"], ID[b"k"]),)), "q", {b"z"}),
        (saying("q", bad_words=((ID[b"q"],),)), "", {b"q"}),
    ],
)
def test_bans_hold_where_something_else_is_left(
    grammars: Grammars, sampling: Sampling, output: str, wanted: set[bytes]
) -> None:
    constraints = Constraints(grammars, SIZE, 1)
    constraints.enter(0, sampling, [7, *ids(output)], 1)
    assert allowed(constraints) == wanted


def test_thinking_ends_when_its_budget_is_spent(grammars: Grammars) -> None:
    begin, end = 9, 10
    constraints = Constraints(grammars, SIZE, 1)
    constraints.enter(0, replace(FREE, thinking=Thinking(2, end, begin)), [7], 1)
    for token in (ID[b"x"], begin, ID[b"x"]):
        constraints.accept([0], [token])
        assert allowed(constraints) is None
    constraints.accept([0], [ID[b"y"]])
    assert allowed(constraints) == {token_bytes()[end]}
    constraints.accept([0], [end])
    assert allowed(constraints) is None


def test_thinking_that_the_prompt_opened(grammars: Grammars) -> None:
    """The budget counts what another engine wrote too; the grammar sees the forced end."""
    end = 10
    rules = spec.up_to("thinking", "</think>", {"</think>": end})
    grammar = spec.choice(["a"]).text("thinking", rules)
    constraints = Constraints(grammars, SIZE, 1)
    sampling = replace(saying("a"), grammar=grammar, thinking=Thinking(2, end))
    constraints.enter(0, sampling, [7, *ids("hm")], 1)
    assert allowed(constraints) == {token_bytes()[end]}
    constraints.accept([0], [end])
    assert allowed(constraints) == {b"a"}


def test_an_error_is_that_of_its_row(grammars: Grammars) -> None:
    constraints = Constraints(grammars, SIZE, 2)
    constraints.enter(0, saying("a"), [7, *ids("b")], 1)
    constraints.enter(1, saying("a"), [7], 1)
    masks = constraints.masks([0, 1])
    assert masks is not None
    assert masks.rows == [1]
    assert isinstance(masks.errors[0], GrammarError)
    failures = masks.failures([3, -1])
    assert [failures[row]["code"] for row in (0, 1)] == ["invalid_grammar"] * 2
