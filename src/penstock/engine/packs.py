"""The folder of prepared weights: what a start finds there, and what it leaves.

A file is named by a hash of all that its bytes follow from: the checkpoint's contents, the format,
the part that this rank holds, and the code that makes it. Contents are hashed once: afterwards a
checkpoint file is known by its place, size, inode and times, so that a second start reads none of
it. Engines that start together take turns by a lock: the first prepares, the others map.

Nothing that goes wrong here stops a start: it goes on without the folder and says why. Files that
were used least recently make room for new ones.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

import penstock
from penstock.config import ModelConfig
from penstock.engine.pack import DamagedError, Pack, PackWriter
from penstock.layers.store import UNKEPT, Store
from penstock.parallel.ranks import RankGroup

SUFFIX = ".weights"
KNOWN = "checkpoints.json"
MOST_KNOWN = 1000
"""checkpoint files whose hashes are remembered"""
SPARE_BYTES = 1 << 30
"""of the disk: a cache must not be what fills it"""
LEAST_BYTES = 64 << 20
"""that a file may grow to beyond twice its weights: padding of many small matrices"""
WAIT_S = 900.0
"""for another process that prepares the same weights"""
LOOK_S = 0.1
MAKERS = ("kernels", "layers", "models", "parallel", "quant", "engine/weights.py")
"""the code that a file's bytes follow from"""
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@dataclass(frozen=True, slots=True)
class Kept:
    """The Store of one start, and what was found."""

    store: Store
    note: str
    found: str = "off"
    """hit, miss or off"""
    fills: bool = True
    """weights take memory of this process"""

    @property
    def hit(self) -> bool:
        """The checkpoint's tensors are not needed."""
        return self.found == "hit"

    def outcome(self) -> str:
        """The note, once the model is ready."""
        problem = self.store.problem if isinstance(self.store, PackWriter) else None
        if problem is None:
            return self.note
        return f"warning: prepared weights are not kept: {problem.strerror or problem}"


UNUSED = Kept(UNKEPT, "")
"""where no kernels read packed weights"""


def user_cache() -> Path:
    """Where this user's programs keep what they can make again, for Penstock."""
    base = os.path.expandvars("$XDG_CACHE_HOME")  # absolute, says the XDG specification, or unset
    root = Path(base) if os.path.isabs(base) else Path("~/.cache").expanduser()
    return root / "penstock"


def cache_folder(given: str | None) -> Path:
    """The folder that the option names, or the default one."""
    return user_cache() / "weights" if given is None else Path(given).expanduser()


def keep(
    model: ModelConfig,
    folder: Path,
    dtype: torch.dtype,
    ranks: RankGroup,
    copied: bool,
    weight_bytes: int,
) -> Kept:
    """The Store for a rank's part of the checkpoint in `folder`; weight_bytes: before packing."""
    if not model.weights_cache:
        return Kept(UNKEPT, "prepared weights are not kept: --no-weights-cache")
    place = cache_folder(model.weights_cache_dir)
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = {
            "model": str(folder),
            "quantization": model.quantization,
            "dtype": str(dtype).removeprefix("torch."),
            "rank": [ranks.rank, ranks.size, ranks.stage.index, ranks.stage.count],
        }
        key = _key(place, folder, about)
        return _open(place / (key + SUFFIX), key, about, copied, weight_bytes, model)
    except OSError as error:
        return Kept(UNKEPT, f"warning: prepared weights are not kept in {place}: {error.strerror}")


def _open(
    path: Path,
    key: str,
    about: dict[str, Any],
    copied: bool,
    weight_bytes: int,
    model: ModelConfig,
) -> Kept:
    """The file, or a writer for it. Raises OSError."""
    lock, warning = _lock(path.with_suffix(".lock")), ""
    try:
        try:
            pack = Pack(path, key, copied)
            os.utime(path)
            os.close(lock)
            how = "copied to huge pages" if copied else "mapped, shared with other engines"
            note = f"weights cache: hit, {pack.num_bytes / 2**20:.1f} MiB {how}, {path}"
            return Kept(pack, note, "hit", fills=copied)
        except FileNotFoundError:
            pass
        except DamagedError as error:
            path.unlink()
            warning = f"warning: {path} is damaged ({error}) and made anew; "
        make_room(path.parent, weight_bytes, model.weights_cache_bytes)
        most_bytes = 2 * weight_bytes + LEAST_BYTES
        writer = PackWriter(path, key, about, most_bytes, copied, lock)
        return Kept(writer, f"{warning}weights cache: miss, now kept in {path}", "miss")
    except OSError:
        os.close(lock)
        raise


def _lock(path: Path) -> int:
    """A file that one process at a time holds, until it is closed. Raises OSError."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    end = time.monotonic() + WAIT_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError as error:
            if time.monotonic() > end:
                os.close(file)
                held = f"another process has been preparing them for {WAIT_S:.0f} s"
                raise OSError(error.errno, held) from None
            time.sleep(LOOK_S)


# Keys


def _key(place: Path, folder: Path, about: dict[str, Any]) -> str:
    """Names the bytes of a file. Raises OSError."""
    files = sorted(folder.glob("*.safetensors")) + sorted(folder.glob("*.safetensors.index.json"))
    hashes = _contents(place, [folder / "config.json", *files])
    facts = [makers(), *(about[name] for name in ("quantization", "dtype", "rank")), *hashes]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


@cache
def makers() -> str:
    """A hash of the version and of the code that prepares weights."""
    digest = hashlib.sha256(penstock.__version__.encode())
    root = Path(penstock.__file__).parent
    for name in MAKERS:
        path = root / name
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _contents(place: Path, files: list[Path]) -> list[str]:
    """SHA-256 of each file, read only if it is not the same as at an earlier start."""
    lock = _lock(place / "checkpoints.lock")
    try:
        known = _known(place)
        found = []
        for file in files:
            path, status = file.resolve(), file.stat()
            facts = [
                status.st_size,
                status.st_mtime_ns,
                status.st_ctime_ns,
                status.st_ino,
                status.st_dev,
            ]
            entry = known.pop(str(path), None)
            if entry is None or entry[:-1] != facts:
                entry = [*facts, digest(path)]
            known[str(path)] = entry  # the latest come last
            found.append(entry[-1])
        for path_ in list(known)[:-MOST_KNOWN]:
            del known[path_]
        fresh = place / f"{KNOWN}.new"
        fresh.write_text(json.dumps(known))
        fresh.rename(place / KNOWN)
        return found
    finally:
        os.close(lock)


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _known(place: Path) -> dict[str, list[Any]]:
    """What earlier starts knew; nothing where that cannot be read."""
    try:
        known = json.loads((place / KNOWN).read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


# The folder as a whole


def packs(place: Path) -> list[Path]:
    """Files of prepared weights, least recently used first."""
    return sorted(place.glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime)


def make_room(place: Path, size: int, most_bytes: int) -> list[Path]:
    """Delete what was used least recently until `size` more bytes stay within most_bytes and leave
    the disk some room; what was deleted. Raises OSError when that cannot be."""
    for scrap in place.glob("*.new"):
        if time.time() - scrap.stat().st_mtime > WAIT_S:
            scrap.unlink()  # of a start that was killed
    there = packs(place)
    total = sum(path.stat().st_size for path in there)
    gone = []

    def fits() -> bool:
        free = shutil.disk_usage(place).free
        return total + size <= most_bytes and free >= size + SPARE_BYTES

    while not fits():
        if not there:
            free = shutil.disk_usage(place).free
            cause = f"{size} bytes are too many for --weights-cache-bytes {most_bytes}, "
            raise OSError(0, cause + f"or for the {free} bytes that the disk has left")
        oldest = there.pop(0)
        total -= oldest.stat().st_size
        oldest.unlink()
        with suppress(OSError):
            oldest.with_suffix(".lock").unlink()
        gone.append(oldest)
    return gone


def clear(place: Path) -> int:
    """Delete all prepared weights; the bytes freed. Engines that map them go on."""
    freed = 0
    for path in packs(place):
        freed += path.stat().st_size
        path.unlink()
    return freed


def huge_pages() -> bool:
    """Whether memory that asks gets huge pages: files that are mapped never do."""
    try:
        return "[never]" not in HUGE_PAGES.read_text()
    except OSError:
        return False
