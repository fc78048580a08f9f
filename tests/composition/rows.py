"""Which features run together: every pair, rows that cover all pairs, and triples by name."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import combinations, product

from penstock.config.features import FEATURES, Feature, alternatives, pairs, refusal

Row = frozenset[str]
"""names of the features that are on"""

TRIPLES = (
    ("tensor parallel", "prefix cache", "chunked prefill"),
    ("tensor parallel", "int4", "prefix cache"),
    ("pipeline parallel", "depth 2", "preemption"),
    ("data parallel", "prefix cache"),
    ("context parallel", "chunked prefill", "prefix cache"),
)
"""Cancelled requests are part of every run."""

BY_NAME = {feature.name: feature for feature in FEATURES}


def possible(row: Row, features: Sequence[Feature] = FEATURES) -> bool:
    on = [feature for feature in features if feature.name in row]
    return not any(alternatives(a, b) or refusal(a, b) for a, b in combinations(on, 2))


def every_pair() -> list[Row]:
    """Two features and forced preemption, nothing else."""
    rows = {frozenset({a.name, b.name, "preemption"}) for a, b in pairs() if not refusal(a, b)}
    return sorted(rows, key=sorted)


def num_processes(row: Row) -> int:
    """Of one run."""
    return 2 ** sum(name.endswith("parallel") for name in row)


def covering(
    names: Sequence[str], allowed: Callable[[Row], bool], seed: int = 0, tries: int = 30
) -> list[Row]:
    """Rows, each of them allowed, that show every two features in each of the four states (both
    on, one on, both off) that some allowed row can show. Greedy (AETG, Cohen et al. 1997): of
    `tries` rows that are filled in random orders the one that shows most new states is kept."""
    draw = random.Random(seed)
    missing = {
        ((a, x), (b, y))
        for a, b in combinations(names, 2)
        for x, y in product((True, False), repeat=2)
        if allowed(frozenset(name for name, on in ((a, x), (b, y)) if on))
    }
    rows: list[Row] = []
    while missing:
        found = [_fill(names, allowed, missing, draw) for _ in range(tries)]
        best = max(found, key=lambda row: len(_shown(names, row) & missing))
        rows.append(best)
        missing -= _shown(names, best)
    return rows


State = tuple[tuple[str, bool], tuple[str, bool]]


def _fill(
    names: Sequence[str], allowed: Callable[[Row], bool], missing: set[State], draw: random.Random
) -> Row:
    """A row around one missing state."""
    given = dict(draw.choice(sorted(missing)))
    order = [name for name in names if name not in given]
    draw.shuffle(order)
    for name in order:
        gains = {}
        for on in draw.sample((True, False), 2):
            row = frozenset(key for key, value in (given | {name: on}).items() if value)
            if allowed(row):
                states = (_state(names, name, on, other, x) for other, x in given.items())
                gains[on] = sum(state in missing for state in states)
        given[name] = max(gains, key=gains.__getitem__)
    return frozenset(name for name, on in given.items() if on)


def _state(names: Sequence[str], a: str, x: bool, b: str, y: bool) -> State:
    return ((a, x), (b, y)) if names.index(a) < names.index(b) else ((b, y), (a, x))


def _shown(names: Sequence[str], row: Row) -> set[State]:
    return set(combinations([(name, name in row) for name in names], 2))
