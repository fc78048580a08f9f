"""Everything composes: the tokens of a plain engine whatever is switched on together."""

from __future__ import annotations

import sys

import pytest

from tests.composition import rows
from tests.composition.asking import Oracle, Program, check
from tests.composition.conftest import ENGINE
from tests.composition.rows import BY_NAME, TRIPLES, Row, covering, every_pair

MOST_PROCESSES = 4
"""Of one run with each change."""


def allowed(row: Row) -> bool:
    return rows.possible(row) and rows.num_processes(row) <= MOST_PROCESSES


COVER = covering(list(BY_NAME), allowed)


def label(row: Row) -> str:
    return "+".join(sorted(row)).replace(" ", "-")


@pytest.mark.slow  # alone they take a minute; beside other work a row stalled (docs/log.md)
@pytest.mark.parametrize("row", COVER, ids=label)
async def test_rows_that_cover_all_pairs(row: Row, plain: Oracle, program: Program) -> None:
    await check(row, plain, program)


@pytest.mark.slow
@pytest.mark.parametrize("row", every_pair(), ids=label)
async def test_every_pair(row: Row, plain: Oracle, program: Program) -> None:
    await check(row, plain, program)


@pytest.mark.slow
@pytest.mark.parametrize("names", TRIPLES, ids=lambda names: label(frozenset(names)))
async def test_triples_in_processes_of_their_own(names: tuple[str, ...], plain: Oracle) -> None:
    """Started as users start them."""
    await check(frozenset(names) | {"preemption"}, plain, (sys.executable, *ENGINE))
