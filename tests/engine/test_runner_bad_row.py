"""A row of NaN logits fails its own request and no other."""

from __future__ import annotations

import torch
from torch import Tensor

from penstock.attention.base import AttnBatch
from penstock.core.plan import UNKNOWN, BlockDelta, Entry, KVGroup, StepPlan
from penstock.core.request import Sampling
from penstock.engine.runner import ModelRunner
from penstock.layers.targets import Targets

V, POISON = 11, 7


class Counter:
    """A model whose next id is the last plus one; after POISON its logits are NaN."""

    kv_groups: tuple[KVGroup, ...] = (KVGroup((0,)),)
    num_kv_heads = head_dim = 1
    vocab_size = V
    max_positions = 64

    def forward(
        self, ids: Tensor, positions: Tensor, caches: list[Tensor], batch: AttnBatch
    ) -> Tensor:
        table = torch.eye(V).roll(1, dims=1)
        table[POISON] = float("nan")
        return torch.nn.functional.embedding(ids, table)

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden.clone()

    def targets(self) -> Targets:
        return {}

    def spare(self, name: str) -> bool:
        return False


def test_the_plan_behind_a_bad_row_still_runs() -> None:
    """With two plans in flight the next step takes the bad row's id (-1) as its input: it used to
    reach the embedding as an index, and the failed step took all its requests with it."""
    runner = ModelRunner(Counter(), [torch.zeros(1)], 16, 4, 64, torch.device("cpu"))
    greedy = Sampling(temperature=0.0)
    entries = [Entry(0, "bad", [POISON], 1, greedy), Entry(1, "good", [2], 1, greedy)]
    blocks = [BlockDelta(0, 0, 0, [0]), BlockDelta(1, 0, 0, [1])]
    first = runner.run(
        StepPlan(1, entries, [0, 1], [0, 0], [1, 1], [POISON, 2], [True, True], blocks)
    )
    second = runner.run(StepPlan(2, [], [0, 1], [1, 1], [1, 1], [UNKNOWN, UNKNOWN], [True, True]))
    assert first.error is None
    assert first.tokens == [[], [3]]
    assert second.error is None
    assert second.tokens[1] == [4]
