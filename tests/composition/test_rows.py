"""The rows show what they are to show."""

from __future__ import annotations

from itertools import combinations, product

from tests.composition.rows import BY_NAME, TRIPLES, covering, every_pair, num_processes, possible


def test_a_covering_array_shows_every_state_of_every_pair() -> None:
    names = list("abcdefghij")
    found = covering(names, lambda row: not {"a", "b"} <= row)
    for one, other in combinations(names, 2):
        shown = {(one in row, other in row) for row in found}
        every = set(product((True, False), repeat=2))
        assert shown == (every - {(True, True)} if (one, other) == ("a", "b") else every)
    assert len(found) < 12
    assert found == covering(names, lambda row: not {"a", "b"} <= row)


def test_pairs_and_triples_can_be_asked_for() -> None:
    assert all(set(names) <= BY_NAME.keys() for names in TRIPLES)
    assert all(possible(row) for row in [*every_pair(), *map(frozenset, TRIPLES)])
    assert not possible(frozenset({"int8", "int4"}))
    num = len(BY_NAME)
    assert len(every_pair()) == num * (num - 1) // 2 - 1
    assert num_processes(frozenset({"data parallel", "tensor parallel", "int8"})) == 4
