"""A file of prepared weights gives back what was put in, and says when it does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from penstock.engine.pack import PAGE, DamagedError, Pack, PackWriter, check
from penstock.kernels.cpu.pack import PackedWeight, pack_float, pack_int4, pack_int8

TABLE = pack_float(torch.arange(3000, dtype=torch.int16).view(torch.bfloat16).view(60, 50))
NORM = torch.linspace(0, 1, 7)


def weights() -> dict[str, PackedWeight]:
    torch.manual_seed(0)
    q = torch.randint(-127, 128, (70, 90), dtype=torch.int8)
    levels = torch.randint(0, 16, (70, 90), dtype=torch.uint8)
    return {
        "float": pack_float(torch.randn(40, 100).bfloat16(), torch.randn(40)),
        "int8": pack_int8(q, torch.rand(70), parts=2),
        "int4": pack_int4(levels, torch.rand(70, 3).half(), torch.randn(70)),
    }


def never() -> torch.Tensor:
    raise AssertionError("what is kept is not made again")


def written(path: Path, copied: bool = False, size: int = 1 << 20) -> PackWriter:
    writer = PackWriter(path, "key", {"model": "m"}, size, copied)
    for made in weights().values():
        same(writer.matrix(lambda made=made: made), made)  # type: ignore[misc]
    assert torch.equal(writer.tensor(lambda: NORM), NORM)
    same(writer.matrix(lambda: TABLE, looked_up=True), TABLE)
    writer.finish()
    return writer


def same(one: PackedWeight, other: PackedWeight) -> None:
    assert (one.format, one.n, one.k, one.parts) == (other.format, other.n, other.k, other.parts)
    for part in ("data", "scales", "bias"):
        a, b = getattr(one, part), getattr(other, part)
        assert (a is None and b is None) or torch.equal(a, b)


@pytest.mark.parametrize("copied", [False, True])
def test_a_file_gives_back_every_bit(tmp_path: Path, copied: bool) -> None:
    written(tmp_path / "a.weights", copied)
    assert [path.name for path in tmp_path.iterdir()] == ["a.weights"]
    pack = Pack(tmp_path / "a.weights", "key", copied)
    for made in weights().values():
        found = pack.matrix(never)  # type: ignore[arg-type]
        same(found, made)
        assert found.data.data_ptr() % 64 == 0
    assert torch.equal(pack.tensor(never), NORM)
    same(pack.matrix(never, looked_up=True), TABLE)  # type: ignore[arg-type]
    assert pack.about == {"model": "m"}
    pack.verify()


def test_mapped_weights_are_read_only_pages_of_the_file(tmp_path: Path) -> None:
    """So the kernel's page cache holds them once for all processes."""
    path = tmp_path / "a.weights"
    written(path)
    pack = Pack(path, "key")
    data = pack.matrix(never).data.data_ptr()  # type: ignore[arg-type]
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, rights, _, _, inode, *name = line.split()
        start, end = (int(part, 16) for part in span.split("-"))
        if start <= data < end:
            assert (rights, int(inode), name) == ("r--s", path.stat().st_ino, [str(path)])
            return
    raise AssertionError("not mapped")


def damage(path: Path, at: int, what: bytes = b"\xff") -> None:
    with path.open("r+b") as file:
        file.seek(at)
        before = file.read(len(what))
        file.seek(at)
        file.write(bytes(a ^ b for a, b in zip(before, what, strict=True)))


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (3, "not a file of prepared weights"),
        (22, "bytes instead of"),
        (PAGE + 1234, "bytes of 0.data have changed"),
        (-5, "index is damaged"),
    ],
)
def test_a_changed_byte_is_found_wherever_it_is(tmp_path: Path, at: int, message: str) -> None:
    path = tmp_path / "a.weights"
    written(path)
    damage(path, at % path.stat().st_size)
    with pytest.raises(DamagedError, match=message):
        Pack(path, "key")


def test_a_table_that_is_looked_up_is_verified_on_demand(tmp_path: Path) -> None:
    path = tmp_path / "a.weights"
    written(path)
    raw = path.read_bytes()
    damage(path, raw.index(TABLE.data.numpy().tobytes()))
    pack = Pack(path, "key")
    with pytest.raises(DamagedError, match="bytes of 4"):
        pack.verify()


@pytest.mark.parametrize("size", [0, 10, PAGE, PAGE + 10, -1])
def test_a_file_cut_short_is_found(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.weights"
    written(path)
    os.truncate(path, size % path.stat().st_size)
    with pytest.raises(DamagedError):
        Pack(path, "key")


def test_a_file_of_other_weights_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "a.weights")
    with pytest.raises(DamagedError, match="other weights"):
        Pack(tmp_path / "a.weights", "another key")


def test_a_disk_that_is_full_leaves_good_weights_and_no_file(tmp_path: Path) -> None:
    """A limit on the size of files is the full disk here: writes fail beyond it."""
    import resource
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    writer = PackWriter(tmp_path / "a.weights", "key", {}, 1 << 20)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * PAGE, before[1]))
    try:
        kept = {n: writer.matrix(lambda made=made: made) for n, made in weights().items()}  # type: ignore[misc]
        writer.finish()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert writer.problem is not None
    for name, made in weights().items():
        same(kept[name], made)
    assert list(tmp_path.iterdir()) == []


def test_a_writer_given_up_leaves_nothing(tmp_path: Path) -> None:
    writer = PackWriter(tmp_path / "a.weights", "key", {}, 1 << 20)
    writer.tensor(lambda: NORM)
    writer.close()
    assert list(tmp_path.iterdir()) == []


def test_the_check_sees_bytes_pages_and_order() -> None:
    raw = torch.randint(0, 256, (5 * PAGE + 77,), dtype=torch.uint8)
    seen = {check(raw)}
    for at in (0, 1, 2 * PAGE + 5, 5 * PAGE, len(raw) - 1):
        other = raw.clone()
        other[at] ^= 1
        seen.add(check(other))
    swapped = raw.clone()
    swapped[:PAGE], swapped[PAGE : 2 * PAGE] = raw[PAGE : 2 * PAGE], raw[:PAGE]
    seen.add(check(swapped))
    words = raw.clone()
    words[:8], words[8:16] = raw[8:16], raw[:8]
    seen.add(check(words))
    assert len(seen) == 8
