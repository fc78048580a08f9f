"""Fingerprints of all that tokens depend on, so that a log names what a later run must equal.

Each is the beginning of a SHA-256. Weights are fingerprinted in milliseconds: the name, size and
head (all tensor names, types, shapes and offsets) of each file, and PAGES pages of it, spread
evenly. Two checkpoints that differ in few bytes between those pages look alike; the canary's
golden tokens are the second net.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import penstock
from penstock.config import Config

PAGES, PAGE_BYTES = 256, 4096
DIGITS = 16
GOLDEN_TEXT = "The quick brown fox, naïve café: 東京 🙂\n\tdef f(x): return x + 12345"
SECRET = ("api_key",)


def digest(*parts: bytes) -> str:
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(len(part).to_bytes(8, "little"))
        hashed.update(part)
    return hashed.hexdigest()[:DIGITS]


def of_data(data: Any) -> str:
    """Of plain data."""
    return digest(json.dumps(data, sort_keys=True, default=str).encode())


def of_files(paths: Iterable[Path]) -> str:
    """Of whole files, by name; those that are not there count as empty."""
    parts: list[bytes] = []
    for path in sorted(paths):
        parts += [path.name.encode(), path.read_bytes() if path.is_file() else b""]
    return digest(*parts)


def of_weights(folder: Path) -> str:
    """Of a checkpoint's tensors (see the top of this module)."""
    parts: list[bytes] = []
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        parts += [path.name.encode(), str(size).encode()]
        with path.open("rb") as file:
            head = int.from_bytes(file.read(8), "little")
            parts.append(file.read(min(head, size)))
            first = 8 + head
            stride = max(PAGE_BYTES, (size - first) // PAGES)
            for place in [*range(first, size, stride), max(first, size - PAGE_BYTES)]:
                file.seek(place)
                parts.append(file.read(PAGE_BYTES))
    return digest(*parts)


def of_package() -> str:
    """Of the source that runs."""
    root = Path(penstock.__file__).parent
    names = sorted(path for path in root.rglob("*") if path.suffix in (".py", ".cpp", ".h", ".so"))
    parts: list[bytes] = []
    for path in names:
        stat = path.stat()
        if path.suffix == ".so":  # built from the sources beside it
            parts += [path.name.encode(), str(stat.st_size).encode()]
        else:
            parts += [str(path.relative_to(root)).encode(), path.read_bytes()]
    return digest(*parts)


def config_data(config: Config) -> dict[str, dict[str, Any]]:
    """Every option by section, secrets left out."""
    sections: dict[str, dict[str, Any]] = asdict(config)
    for section in sections.values():
        for name in SECRET:
            section.pop(name, None)
    return sections


def hashes(
    config: Config,
    folder: Path,
    tokenizer_folder: Path,
    templates: Mapping[str, str],
    kernels: str,
    threads: int,
) -> dict[str, str]:
    """The fingerprints of a `core.records.Header`.

    Where files lie, which port is served and what is logged do not count as config. The ranks and
    threads of the kernels are hashed with them, for both could change bits.
    """
    sections = config_data(config)
    model = {k: v for k, v in sections["model"].items() if k not in _PLACES}
    tokenizer = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
    return {
        "weights": of_weights(folder),
        "model_config": of_files([folder / "config.json", folder / "generation_config.json"]),
        "tokenizer": of_files(tokenizer_folder / name for name in tokenizer),
        "template": of_data(dict(templates)),
        "engine": of_package(),
        "config": of_data([model, sections["engine"]]),
        "kernels": of_data([kernels, threads]),
    }


_PLACES = (
    "model",
    "revision",
    "tokenizer",
    "download_dir",
    "served_model_name",
    "chat_template",
    "seed",
)
"""Options of the model that say where it lies, or that fingerprints of their own cover."""
