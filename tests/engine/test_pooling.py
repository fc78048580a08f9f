from __future__ import annotations

import random

import pytest
import torch

from penstock.core.plan import Entry, StepPlan
from penstock.core.request import Sampling
from penstock.engine.pooling import Pooling


def plan(*rows: tuple[int, int, int, bool]) -> StepPlan:
    """(slot, start, count, whether it wants output) a row."""
    slots, starts, counts, samples = (list(column) for column in zip(*rows, strict=True))
    return StepPlan(0, [], slots, starts, counts, [0] * len(rows), samples)


def entry(slot: int, length: int, pooling: str) -> Entry:
    return Entry(slot, "x", [0] * length, length, Sampling(pooling=pooling))


def test_rows_are_pooled_and_others_left_alone() -> None:
    pooling, hidden = Pooling(), torch.randn(7, 4)
    pooling.enter(entry(0, 2, "mean"))
    pooling.enter(entry(1, 3, ""))
    pooling.enter(entry(2, 2, "last"))
    found = pooling.pool(plan((1, 0, 3, True), (0, 0, 2, True), (2, 0, 2, True)), hidden)
    assert set(found) == {1, 2}
    assert found[1] == pytest.approx(hidden[3:5].mean(0).tolist(), abs=1e-6)
    assert found[2] == hidden[6].tolist()
    assert pooling.pool(plan((0, 2, 1, True)), hidden[:1]) == {}, "only once"


@pytest.mark.parametrize("kind", ["mean", "last"])
def test_the_cut_of_the_prompt_does_not_show(kind: str) -> None:
    rng, hidden = random.Random(0), torch.randn(50, 16)

    def pooled(chunks: list[int]) -> list[float]:
        pooling, start = Pooling(), 0
        pooling.enter(entry(0, 50, kind))
        for count in chunks:
            rows = hidden[start : start + count]
            found = pooling.pool(plan((0, start, count, start + count == 50)), rows)
            start += count
        return found[0]

    whole = pooled([50])
    for _ in range(20):
        cuts = sorted(rng.sample(range(1, 50), rng.randrange(1, 9)))
        chunks = [b - a for a, b in zip([0, *cuts], [*cuts, 50], strict=True)]
        assert pooled(chunks) == whole


def test_a_request_that_comes_back_begins_anew() -> None:
    pooling, hidden = Pooling(), torch.randn(4, 4)
    pooling.enter(entry(0, 4, "mean"))
    pooling.pool(plan((0, 0, 2, False)), torch.randn(2, 4))
    pooling.enter(entry(0, 4, "mean"))
    found = pooling.pool(plan((0, 0, 4, True)), hidden)
    assert found[0] == pytest.approx(hidden.mean(0).tolist(), abs=1e-6)
