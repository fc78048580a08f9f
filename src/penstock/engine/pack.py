"""One file of prepared weights: written once, mapped by every engine that starts afterwards.

    page 0     magic, where the index begins, its length, its SHA-256
    pages      tensors, each at the start of a page, in the layout that the kernels read; it is the
               same for every instruction set (kernels/cpu/pack.py)
    end        the index, JSON: what the file is about, each tensor's type, shape, place and check,
               by number: a model asks for its weights in one order

The check of a tensor is SHA-256 over the 64-bit sums of its pages and of each place in the pages:
any byte that changed is found, at the speed of memory. Index and sizes are checked whenever a file
is opened, and so is each tensor that the first step would read anyway. A table of which a step
looks up a few rows is not (`verify` does): a second start reads no more than it touches.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
import warnings
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from penstock.kernels.cpu.memory import ARENA
from penstock.kernels.cpu.pack import Format, PackedWeight

MAGIC = b"PENSTOCK weights 1\n"
PAGE = 4096
WORDS = PAGE // 8
CHECKED_PAGES = 4096
"""summed at a time, so that both sums read memory once"""
HEADER = struct.Struct("<19sQQ32s")
DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.uint8, torch.int8, torch.float16, torch.bfloat16, torch.float32)
}
Make = Callable[[], Tensor]


class DamagedError(Exception):
    """The file is not what it should be; the message says in which way."""


class Pack:
    """An open file. Tensors lie in the mapped file, shared with whoever else maps it; or in
    huge pages of this process (`copied`), but for tables that are looked up."""

    hit = True

    def __init__(self, path: Path, key: str | None = None, copied: bool = False) -> None:
        """key: None takes a file of any weights. Raises DamagedError, OSError."""
        self._copied = copied
        with path.open("rb") as file:
            self._index, size = _read_index(file.fileno())
            self._mapped = _map(file.fileno(), size)
        if key is not None:
            if self._index.get("key") != key:
                raise DamagedError("it is of other weights")
            self.verify(all=False)
        self.num_bytes = size
        self._names = map(str, count())

    @property
    def about(self) -> dict[str, Any]:
        """What the weights are of, for people."""
        about: dict[str, Any] = self._index["about"]
        return about

    def verify(self, all: bool = True) -> None:
        """Compare the tensors with their checks. Raises DamagedError."""
        for name, entry in self._index["tensors"].items():
            if (all or not entry["looked_up"]) and check(self._bytes(entry)) != entry["check"]:
                raise DamagedError(f"the bytes of {name} have changed")

    def matrix(self, make: Callable[[], PackedWeight], looked_up: bool = False) -> PackedWeight:
        """See Store."""
        name = next(self._names)
        form, n, k, parts = self._index["matrices"][name]
        tensors = [self._tensor(f"{name}.{part}") for part in ("data", "scales", "bias")]
        assert tensors[0] is not None
        return PackedWeight(Format(form), n, k, tensors[0], tensors[1], tensors[2], parts)

    def tensor(self, make: Make) -> Tensor:
        """See Store."""
        found = self._tensor(next(self._names))
        assert found is not None
        return found

    def finish(self) -> None:
        """See Store."""

    def _tensor(self, name: str) -> Tensor | None:
        entry = self._index["tensors"].get(name)
        if entry is None:
            return None
        dtype, shape = DTYPES[entry["dtype"]], tuple(entry["shape"])
        found = self._bytes(entry).view(dtype).view(shape)
        if self._copied and not entry["looked_up"]:
            found = ARENA.zeros(shape, dtype).copy_(found)
        return found

    def _bytes(self, entry: dict[str, Any]) -> Tensor:
        size = prod(entry["shape"]) * DTYPES[entry["dtype"]].itemsize
        return self._mapped[entry["offset"] : entry["offset"] + size]


class PackWriter:
    """Takes tensors as they are made and writes them to a new file, which appears under its name
    when it is whole. `problem` says why it will not; the tensors are good all the same."""

    hit = False

    def __init__(
        self,
        path: Path,
        key: str,
        about: dict[str, Any],
        most_bytes: int,
        copied: bool = False,
        lock: int = -1,
    ) -> None:
        """most_bytes: what the file will not exceed; copied: see Pack; lock: a file descriptor,
        closed with the writer. Raises OSError."""
        self.problem: OSError | None = None
        self._lock = -1
        self._path, self._copied = path, copied
        self._index: dict[str, Any] = {"key": key, "about": about, "tensors": {}, "matrices": {}}
        self._temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
        self._file = -1
        self._file = os.open(self._temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        self._end = PAGE
        self._names = map(str, count())
        # Mapped as a whole before anything is in it: one mapping, whatever the number of tensors.
        os.truncate(self._file, most_bytes)
        self._mapped = _map(self._file, most_bytes)
        self._lock = lock

    def matrix(self, make: Callable[[], PackedWeight], looked_up: bool = False) -> PackedWeight:
        """See Store."""
        name, made = next(self._names), make()
        kept = [
            None if part is None else self._keep(f"{name}.{kind}", part, looked_up)
            for kind, part in (("data", made.data), ("scales", made.scales), ("bias", made.bias))
        ]
        assert kept[0] is not None
        self._index["matrices"][name] = (int(made.format), made.n, made.k, made.parts)
        return PackedWeight(made.format, made.n, made.k, kept[0], kept[1], kept[2], made.parts)

    def tensor(self, make: Make) -> Tensor:
        """See Store."""
        return self._keep(next(self._names), make())

    def _keep(self, name: str, made: Tensor, looked_up: bool = False) -> Tensor:
        """The same values, in the file where they are to be mapped."""
        if self.problem is not None:
            return made
        raw = made.contiguous().flatten().view(torch.uint8)
        entry = {
            "dtype": str(made.dtype).removeprefix("torch."),
            "shape": list(made.shape),
            "offset": self._end,
            "looked_up": looked_up,
            "check": check(raw),
        }
        try:
            _write(self._file, raw.numpy().data, self._end)
            if not self._copied or looked_up:
                kept = self._mapped[self._end : self._end + len(raw)]
                made = kept.view(made.dtype).view(made.shape)
        except OSError as error:
            self._fail(error)
        self._index["tensors"][name] = entry
        self._end += -(-len(raw) // PAGE) * PAGE
        return made

    def finish(self) -> None:
        """Give the file its name, once all of it is on the disk."""
        if self.problem is not None:
            return
        try:
            index = json.dumps(self._index).encode()
            os.truncate(self._file, self._end)
            _write(self._file, index, self._end)
            digest = hashlib.sha256(index).digest()
            _write(self._file, HEADER.pack(MAGIC, self._end, len(index), digest), 0)
            os.fsync(self._file)
            os.rename(self._temporary, self._path)
            folder = os.open(self._path.parent, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
        except OSError as error:
            self._fail(error)
        self.close()

    def close(self) -> None:
        """Give up what is not finished. May be called twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            with suppress(OSError):
                self._temporary.unlink()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    __del__ = close

    def _fail(self, error: OSError) -> None:
        self.problem = error
        self.close()


def check(raw: Tensor) -> str:
    """The check of bytes, uint8 [n], as the module says."""
    whole = len(raw) // PAGE * PAGE
    digest = hashlib.sha256(raw[whole:].numpy().tobytes())
    places = torch.zeros(WORDS, dtype=torch.int64)
    for pages in torch.split(raw[:whole].view(torch.int64).view(-1, WORDS), CHECKED_PAGES):
        digest.update(pages.sum(1).numpy().tobytes())
        places += pages.sum(0)
    digest.update(places.numpy().tobytes())
    return digest.hexdigest()


def _read_index(file: int) -> tuple[dict[str, Any], int]:
    """(the index, size of the file). Raises DamagedError."""
    size = os.fstat(file).st_size
    header = os.pread(file, HEADER.size, 0)
    if len(header) < HEADER.size or header[: len(MAGIC)] != MAGIC:
        raise DamagedError("it is not a file of prepared weights")
    _, offset, length, digest = HEADER.unpack(header)
    if offset + length != size:
        raise DamagedError(f"it has {size} bytes instead of {offset + length}")
    raw = os.pread(file, length, offset)
    if hashlib.sha256(raw).digest() != digest:
        raise DamagedError("its index is damaged")
    index: dict[str, Any] = json.loads(raw)
    return index, size


def _write(file: int, data: Any, offset: int) -> None:
    """All of it: one call may write less."""
    left = memoryview(data).cast("B")
    while left:
        written = os.pwrite(file, left, offset)
        left, offset = left[written:], offset + written


def _map(file: int, size: int) -> Tensor:
    """The first bytes of a file, uint8, read only."""
    mapped = mmap.mmap(file, size, prot=mmap.PROT_READ)
    with warnings.catch_warnings():
        # torch has no read-only tensors, and says so. Nothing writes to weights.
        warnings.simplefilter("ignore")
        return torch.frombuffer(mapped, dtype=torch.uint8)
