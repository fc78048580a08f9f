"""Ranks 1 .. N-1 as processes that outlive one model, so that many shapes share one start.

`python -m tests.ranks FD PARENT` is one of them: it does what it is told through its pipe, with
the loader, the collectives and the runner of the engine.
"""

from __future__ import annotations

import os
import subprocess
import sys
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from penstock.attention.base import AttentionBackend
from penstock.core.plan import AdapterLoad, StepPlan
from penstock.engine.adapters import AdapterStore
from penstock.engine.frames import Room
from penstock.engine.kv import allocate_caches
from penstock.engine.load import NATIVE
from penstock.engine.runner import ModelRunner
from penstock.engine.weights import load_model
from penstock.errors import EngineError
from penstock.layers.decoder import Decoder
from penstock.layers.native import NativeDecoder
from penstock.models.base import CausalLM
from penstock.parallel.meeting import Seat, World
from penstock.parallel.ranks import RankGroup
from penstock.registry import ATTENTION_BACKENDS, FORMATS
from tests.dense import Sequence

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")
MOST_TOKENS, MOST_ROWS, CONTEXT = 4096, 32, 128


class Rank:
    """One rank's connections, and the model of the moment."""

    def __init__(self, seat: Seat, parent: int | None) -> None:
        """parent: whose end ends this rank (None: this is the leader, which nobody ends)."""
        self._groups: dict[str, RankGroup] = {}
        for way in ("shared_memory", "distributed"):
            self._groups[way] = seat.ranks()
            gone = lambda: parent is not None and os.getppid() != parent  # noqa: E731
            seat.connect(self._groups[way], CPU, way, gone)
        if parent is not None:
            seat.close()

    def load(
        self, path: Path, format: str, way: str, backend: str, slots: int, rank: int
    ) -> CausalLM:
        self.ranks = self._groups[way]
        self.backend: AttentionBackend = ATTENTION_BACKENDS.load(backend)()
        linear = FORMATS.load(format)()
        model = load_model(path, torch.float32, CPU, self.backend, linear, self.ranks)
        self.model: CausalLM = model
        self.slots, self.store = slots, AdapterStore(rank)
        if slots:
            assert isinstance(model, Decoder)
            model.adapt(slots, rank)
        if backend == NATIVE:
            assert isinstance(model, Decoder)
            self.model = NativeDecoder(model, MOST_TOKENS, MOST_ROWS, CONTEXT, threads=1)
        return self.model

    def feed(self, ids: list[int]) -> torch.Tensor:
        """On the leader logits."""
        return Sequence(self.model, self.backend, 16, ranks=self.ranks).feed(ids)

    def settle(self, room: Room) -> ModelRunner:
        model, sizes = self.model, (room.num_blocks, room.block_size)
        shape = (model.num_kv_heads, model.head_dim, torch.float32, CPU)
        caches = allocate_caches(self.backend, model.kv_groups, *sizes, *shape)
        sizes = (room.block_size, room.max_num_seqs, room.max_model_len)
        put, slots = self.put, self.slots
        self.runner = ModelRunner(model, caches, *sizes, CPU, self.ranks, put, slots)
        return self.runner

    def put(self, load: AdapterLoad) -> None:
        assert isinstance(self.model, Decoder | NativeDecoder)
        self.model.set_adapter(load.slot, self.store.get(load.adapter))

    def run(self, plan: StepPlan) -> None:
        error = self.runner.run(plan).error
        assert error is None, error


class Team:
    """The leader here, and its processes. A `Group` for the engine's GroupExecutor."""

    def __init__(self, size: int, stages: int = 1) -> None:
        self.size, self.stages = size, stages
        world = World(size, stages)
        self._lines: list[Connection] = []
        self._processes = []
        for number in range(1, world.processes):
            ours, theirs = Pipe()
            seat = world.seat(number)
            fds = (theirs.fileno(), *seat.fds)
            command = [sys.executable, "-m", "tests.ranks", str(fds[0]), str(os.getpid())]
            with theirs:
                self._processes.append(subprocess.Popen(command, pass_fds=fds, cwd=ROOT))
            ours.send(seat)
            self._lines.append(ours)
        self._rank = Rank(world.seat(0), None)
        world.close()

    def load(
        self,
        path: Path,
        format: str = "none",
        way: str = "shared_memory",
        backend: str = "torch",
        slots: int = 0,
        rank: int = 0,
    ) -> CausalLM:
        """slots, rank: room for adapters."""
        self._tell("load", path, format, way, backend, slots, rank)
        return self._rank.load(path, format, way, backend, slots, rank)

    @property
    def backend(self) -> AttentionBackend:
        return self._rank.backend

    def feed(self, ids: list[int]) -> torch.Tensor:
        """Logits float32 [ids, vocab_size] of a new sequence."""
        self._tell("feed", ids)
        return self._rank.feed(ids)

    def settle(self, room: Room) -> ModelRunner:
        """The leader's runner; the others have theirs."""
        self._tell("settle", room)
        return self._rank.settle(room)

    def send(self, plan: StepPlan) -> None:
        self._tell("run", plan)

    def check(self) -> None:
        if any(process.poll() is not None for process in self._processes):
            raise EngineError("A rank ended.")

    def abandon(self, why: str) -> None:
        raise EngineError(why)

    def close(self) -> None:
        """Of a GroupExecutor: the team goes on."""

    def end(self) -> None:
        for line in self._lines:
            line.close()
        for process in self._processes:
            assert process.wait(10) == 0

    def _tell(self, *message: Any) -> None:
        self.check()
        for line in self._lines:
            line.send(message)


def main(fd: int, parent: int) -> None:
    torch.set_num_threads(1)
    line = Connection(fd)
    rank = Rank(line.recv(), parent)
    while True:
        try:
            name, *arguments = line.recv()
        except EOFError:
            sys.stderr.flush()
            os._exit(0)
        getattr(rank, name)(*arguments)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
