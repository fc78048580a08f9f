"""Adapters in this process's memory, ready to be put into a slot of the model."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from penstock.core.request import Adapter, Submission
from penstock.engine import peft
from penstock.errors import CheckpointError
from penstock.layers.lora import LowRank, Weights

KEPT = 32
"""Adapters that stay in memory, the ones used last."""


class AdapterStore:
    """Reads each adapter once, before the first request with it is scheduled, so that no step
    waits for a disk and none fails for a file."""

    def __init__(self, max_rank: int) -> None:
        self._max_rank = max_rank
        self._kept: OrderedDict[str, Weights] = OrderedDict()

    def prepare(self, submission: Submission) -> None:
        """Read what a request needs. Raises CheckpointError and UnsupportedError."""
        if submission.adapter is not None:
            self.get(submission.adapter)

    def get(self, adapter: Adapter) -> Weights:
        """Its matrices. Raises CheckpointError where the files are no longer those that were
        checked, and what `peft` raises."""
        found = self._kept.pop(adapter.digest, None)
        if found is None:
            if peft.digest(Path(adapter.path)) != adapter.digest:
                raise CheckpointError(
                    f"The adapter in {adapter.path} is not the one that was loaded.",
                    cure="Load it again, under a new name.",
                )
            found = read(Path(adapter.path), self._max_rank)
        self._kept[adapter.digest] = found
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return found


def read(folder: Path, max_rank: int) -> Weights:
    """An adapter's matrices, float32, B scaled. Raises CheckpointError and UnsupportedError."""
    _, scale = peft.read_scale(folder, max_rank)
    sides: dict[tuple[int, str], dict[str, torch.Tensor]] = {}
    try:
        with safe_open(folder / peft.WEIGHTS, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                layer, matrix, side = peft.parse(name, folder)
                sides.setdefault((layer, matrix), {})[side] = file.get_tensor(name).float()
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder} is damaged ({error}).", cure="Save it again.") from error
    found: dict[int, dict[str, LowRank]] = {}
    for (layer, matrix), pair in sides.items():
        found.setdefault(layer, {})[matrix] = (pair["A"], pair["B"] * scale)
    return found
