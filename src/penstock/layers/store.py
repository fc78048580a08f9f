"""The seam between a model that packs its weights and whoever keeps them for the next start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from penstock.kernels.cpu.pack import PackedWeight


class Store(Protocol):
    """Prepared weights: what is there already is not made again. A model asks for all of them,
    always in the same order, then calls `finish`."""

    def matrix(self, make: Callable[[], PackedWeight], looked_up: bool = False) -> PackedWeight:
        """The next one, a packed matrix with its bias; looked_up: a step reads a few of its
        rows."""
        ...

    def tensor(self, make: Callable[[], Tensor]) -> Tensor:
        """The next one, any other tensor."""
        ...

    def finish(self) -> None:
        """That was all."""
        ...


class Unkept:
    """The Store that keeps nothing."""

    def matrix(self, make: Callable[[], PackedWeight], looked_up: bool = False) -> PackedWeight:
        return make()

    def tensor(self, make: Callable[[], Tensor]) -> Tensor:
        return make()

    def finish(self) -> None:
        pass


UNKEPT = Unkept()
