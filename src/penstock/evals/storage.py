"""What a model's weights take, by kind of layer."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from penstock.layers.targets import Targets


@dataclass(frozen=True, slots=True)
class Storage:
    """Weights of one kind, or of a whole model."""

    weights: int
    bytes: int

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.bytes / self.weights

    def __add__(self, other: Storage) -> Storage:
        return Storage(self.weights + other.weights, self.bytes + other.bytes)


def storage(targets: Targets) -> dict[str, Storage]:
    """By checkpoint name, layers taken together (their number shown as *); scales are counted, and
    a head that shares the embedding's table is there once."""
    found: dict[str, Storage] = {}
    for name, target in targets.items():
        kind = re.sub(r"\.\d+\.", ".*.", name)
        part = Storage(math.prod(target.shape), target.nbytes)
        found[kind] = found.get(kind, Storage(0, 0)) + part
    return found
