"""The seam between a model that packs its weights and whoever keeps them for the next start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from penstock.kernels.cpu.pack import PackedWeight


class Store(Protocol):
    """Prepared weights by name: what is there already is not made again. A model asks for each
    name once, always in the same order, then calls `finish`."""

    def matrix(self, name: str, make: Callable[[], PackedWeight]) -> PackedWeight:
        """A packed matrix with its bias."""
        ...

    def tensor(self, name: str, make: Callable[[], Tensor], looked_up: bool = False) -> Tensor:
        """Any other tensor; looked_up: a step reads a few of its rows."""
        ...

    def finish(self) -> None:
        """All names were asked for."""
        ...


class Unkept:
    """The Store that keeps nothing."""

    def matrix(self, name: str, make: Callable[[], PackedWeight]) -> PackedWeight:
        return make()

    def tensor(self, name: str, make: Callable[[], Tensor], looked_up: bool = False) -> Tensor:
        return make()

    def finish(self) -> None:
        pass


UNKEPT = Unkept()
