"""Pipeline stages: who holds which layers (GPipe, Huang et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from penstock.errors import UnsupportedError


@dataclass(frozen=True, slots=True)
class Stage:
    """One of `count` parts of a model, cut between layers."""

    index: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        return self.index == 0

    @property
    def last(self) -> bool:
        return self.index == self.count - 1

    def layers(self, costs: Sequence[int], head_cost: int) -> range:
        """This stage's layers, given what each layer and the head after the last one cost (any
        unit). Raises UnsupportedError for fewer layers than stages."""
        if len(costs) < self.count:
            raise UnsupportedError(
                f"--pipeline-parallel-size is {self.count}, but the model has {len(costs)} layers.",
                cure=f"Use {len(costs)} or less.",
                param="pipeline_parallel_size",
            )
        ends = cut(costs, head_cost, self.count)
        return range(ends[self.index - 1] if self.index else 0, ends[self.index])


WHOLE = Stage()


def cut(costs: Sequence[int], head_cost: int, count: int) -> list[int]:
    """Ends of `count` runs of layers, none empty, such that the costliest run, the head counted
    with the last one, costs as little as possible; earlier runs are the longer ones."""
    sums = [0, *accumulate(costs)]
    layers = len(costs)
    # best[i]: the least costliest run when the layers from i on are cut into the runs at hand
    best = [sums[-1] - done + head_cost for done in sums]
    choices: list[list[int]] = []
    for runs in range(2, count + 1):
        ends, longer = [0] * (layers + 1), list(best)
        for begin in range(layers - runs + 1):
            worst = [
                (max(sums[end] - sums[begin], best[end]), -end)
                for end in range(begin + 1, layers - runs + 2)
            ]
            longer[begin], end = min(worst)
            ends[begin] = -end
        best = longer
        choices.append(ends)
    found, begin = [], 0
    for ends in reversed(choices):
        begin = ends[begin]
        found.append(begin)
    return [*found, layers]
