"""Adapters on disk, as the PEFT library saves them: adapter_config.json and
adapter_model.safetensors. Read without any tensor, so that an adapter can be refused at the door.
"""

from __future__ import annotations

import json
import math
import re
from hashlib import blake2b
from pathlib import Path
from typing import Any

from penstock.core.request import Adapter
from penstock.engine.client import AdapterRoom
from penstock.errors import CheckpointError, UnsupportedError
from penstock.models.config_json import ConfigJson

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TENSOR = re.compile(
    r"base_model\.model\.model\.layers\.(\d+)\.(?:self_attn|mlp)\.(\w+)\.lora_([AB])\.weight"
)
HARMLESS = frozenset(
    """
    auto_mapping base_model_name_or_path revision inference_mode task_type peft_version
    target_modules exclude_modules layers_to_transform layers_pattern init_lora_weights lora_dropout
    loftq_config eva_config corda_config runtime_config ensure_weight_tying qalora_group_size
    megatron_core
    """.split()  # noqa: SIM905
)
"""fields of adapter_config.json that say how it was made, or that the tensors say again"""


def read_scale(folder: Path, max_rank: int) -> tuple[int, float]:
    """(rank, what B is multiplied with). Raises CheckpointError and UnsupportedError for an adapter
    that is no plain LoRA, naming the field."""
    config = ConfigJson(_json(folder / CONFIG), str(folder / CONFIG))
    if config.take("peft_type", str) != "LORA":
        raise UnsupportedError(f"{config.where}: only the type LORA is supported.", param="path")
    if config.take("bias", str, "none") != "none":
        raise UnsupportedError(f"{config.where}: biases (bias) are not supported.", param="path")
    rank = config.size("r")
    if rank > max_rank:
        raise UnsupportedError(
            f"{config.where}: the rank is {rank}, but --max-lora-rank is {max_rank}.",
            cure=f"Serve with --max-lora-rank {rank}.",
            param="path",
        )
    alpha = config.number("lora_alpha", 8)
    root = config.flag("use_rslora", False)
    config.finish(HARMLESS)
    return rank, alpha / (math.sqrt(rank) if root else rank)


def check(name: str, path: str, room: AdapterRoom) -> Adapter:
    """An adapter that fits the model. Raises CheckpointError and UnsupportedError with the reason
    for one that does not."""
    folder = Path(path).absolute()
    rank, _ = read_scale(folder, room.max_rank)
    halves: set[tuple[int, str]] = set()
    for tensor, shape in _header(folder / WEIGHTS).items():
        layer, matrix, side = parse(tensor, folder)
        if matrix not in room.matrices or layer >= room.layers:
            raise UnsupportedError(
                f"{folder}: the tensor {tensor!r} adds to what cannot be added to.",
                cure=f"In this model an adapter may add to {', '.join(room.matrices)}.",
                param="path",
            )
        outputs, inputs = room.matrices[matrix]
        wanted = (rank, inputs) if side == "A" else (outputs, rank)
        if shape != wanted:
            raise CheckpointError(
                f"{folder}: {tensor} has the shape {shape}, but the model asks for {wanted}.",
                cure="The adapter is not of this model.",
            )
        halves ^= {(layer, matrix)}
    if halves:
        layer, matrix = min(halves)
        raise CheckpointError(f"{folder}: layer {layer} has half of {matrix}.")
    return Adapter(name, str(folder), digest(folder))


def parse(tensor: str, folder: Path) -> tuple[int, str, str]:
    """(layer, matrix, A or B) of a tensor's name. Raises UnsupportedError."""
    match = TENSOR.fullmatch(tensor)
    if match is None:
        raise UnsupportedError(
            f"{folder}: the tensor {tensor!r} is not supported.",
            cure="LoRA of attention and feed-forward matrices is.",
            param="path",
        )
    return int(match[1]), match[2], match[3]


def digest(folder: Path) -> str:
    """Of what an adapter computes. Raises CheckpointError."""
    found = blake2b(digest_size=16)
    for name in (CONFIG, WEIGHTS):
        try:
            with (folder / name).open("rb") as file:
                while part := file.read(1 << 20):
                    found.update(part)
        except OSError as error:
            raise _missing(folder / name, error) from error
        found.update(name.encode())
    return found.hexdigest()


def _header(file: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a safetensors file."""
    try:
        with file.open("rb") as opened:
            size = int.from_bytes(opened.read(8), "little")
            if not 0 < size < 100 << 20:
                raise ValueError("the header has no sensible size")
            header: dict[str, Any] = json.loads(opened.read(size))
    except (OSError, ValueError) as error:
        raise _missing(file, error) from error
    header.pop("__metadata__", None)
    return {name: tuple(entry["shape"]) for name, entry in header.items()}


def _json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _missing(file, error) from error
    if not isinstance(data, dict):
        raise _missing(file, ValueError("not a JSON object"))
    return data


def _missing(file: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{file} cannot be read: {error}.",
        cure=f"An adapter is a folder with {CONFIG} and {WEIGHTS}, as PEFT saves it.",
    )
