"""A checkpoint folder -> a model with its weights: config.json and safetensors, nothing else.

The loader knows no model: the model says which tensor goes where (`targets`), each tensor is
mapped from its file and copied into its place (quantized there, if its format is such), so that
no second copy is ever held.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from penstock.attention.base import AttentionBackend
from penstock.engine.kv import available_bytes
from penstock.errors import CheckpointError, ConfigError, UnsupportedError
from penstock.layers.targets import Target, Targets
from penstock.models.base import LoadableLM, ModelPlan, SelfLoading
from penstock.models.config_json import ConfigJson
from penstock.models.kinds import check_kind
from penstock.parallel.ranks import ALONE, RankGroup
from penstock.quant.base import LinearFormat
from penstock.quant.plain import PLAIN
from penstock.registry import ARCHITECTURES, MODEL_IMPLS

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
DOWNLOAD = "Download the checkpoint again."


def load_model(
    path: Path,
    dtype: torch.dtype,
    device: torch.device,
    backend: AttentionBackend,
    format: LinearFormat = PLAIN,
    ranks: RankGroup = ALONE,
    longest: int | None = None,
    impl: str = "auto",
) -> LoadableLM:
    """The model of a checkpoint folder, weights cast to `dtype` (or brought into another format)
    on `device`; of a rank group this rank's part, and no more is read. longest: see ConfigJson.
    impl: see --model-impl.

    Raises CheckpointError (files missing, damaged or contradictory), UnknownArchitectureError,
    UnsupportedError; ConfigError when the memory does not hold the weights.
    """
    model = build_model(path, dtype, device, backend, format, ranks, longest, impl)
    fill(model, path, device, ranks)
    return model


def fill(model: LoadableLM, path: Path, device: torch.device, ranks: RankGroup) -> None:
    """Load the weights of a model from `build_model`. Raises as `load_model`."""
    if isinstance(model, SelfLoading):
        model.load(path)
        return
    check_room(model, device, ranks)
    with torch.inference_mode():
        load_weights(path, model)


def build_model(
    path: Path,
    dtype: torch.dtype,
    device: torch.device,
    backend: AttentionBackend,
    format: LinearFormat,
    ranks: RankGroup,
    longest: int | None = None,
    impl: str = "auto",
) -> LoadableLM:
    """The same without its weights."""
    plan = read_plan(read_config(path), path / "config.json", longest, impl)
    try:
        with torch.inference_mode():
            return plan.build(dtype, device, backend, format, ranks)
    except RuntimeError as error:
        if "out of memory" in str(error) or "can't allocate memory" in str(error):
            raise _no_room("more than there is", device) from error
        raise


def check_room(model: LoadableLM, device: torch.device, ranks: RankGroup) -> None:
    """Raise ConfigError when the memory does not hold the weights.

    On a CPU an empty tensor takes its pages when it is filled: better to refuse before that
    than to be killed in the midst of it. Rank 0, the first to come here, asks for all.
    """
    needed = sum(target.nbytes for target in model.targets().values())
    needed *= ranks.size * ranks.stage.count if ranks.leads else 1
    if device.type == "cpu" and needed > available_bytes(device):
        raise _no_room(f"{needed / 2**30:.1f} GiB", device)


def _no_room(needed: str, device: torch.device) -> ConfigError:
    return ConfigError(
        f"The weights need {needed}, and {device} has "
        f"{available_bytes(device) / 2**30:.1f} GiB available.",
        cure="Use a smaller model or dtype, or a machine with more memory.",
    )


def read_config(path: Path) -> dict[str, Any]:
    """config.json of a checkpoint folder. Raises CheckpointError."""
    if not path.is_dir():
        raise CheckpointError(f"{path} is not a folder.", cure="Name a checkpoint folder.")
    return _read_json(path / "config.json")


def read_plan(
    raw: dict[str, Any], where: Path, longest: int | None = None, impl: str = "auto"
) -> ModelPlan:
    """What a config.json describes; longest: see ConfigJson; impl: see --model-impl. Raises
    CheckpointError, UnknownArchitectureError, UnsupportedError."""
    config = ConfigJson(raw, str(where), longest)
    quantization = config.take("quantization_config", dict, {})
    if quantization:
        method = quantization.get("quant_method", "unknown")
        raise UnsupportedError(
            f"{where}: the checkpoint is quantized ({method}), which is not supported, with or "
            "without --quantization.",
            cure="Use the original checkpoint in bfloat16, float16 or float32.",
            param="quantization_config",
        )
    names = config.take("architectures", list, [])
    if len(names) != 1:
        raise CheckpointError(
            f"{where}: 'architectures' must name exactly one architecture, not {names!r}.",
            cure=f"Known: {', '.join(ARCHITECTURES.names)}.",
            param="architectures",
        )
    name = str(names[0])
    check_kind(config, name)
    plan: ModelPlan = _reader(name, impl)(config)
    return plan


def _reader(architecture: str, impl: str) -> Callable[[ConfigJson], ModelPlan]:
    if impl == "auto" and architecture not in ARCHITECTURES.names and find_spec("transformers"):
        impl = "any"
    own = impl in ("auto", "penstock")
    read: Callable[[ConfigJson], ModelPlan]
    read = ARCHITECTURES.load(architecture) if own else MODEL_IMPLS.load(impl)
    return read


def load_weights(path: Path, model: LoadableLM) -> None:
    """Fill the model from the folder's safetensors. Raises CheckpointError."""
    missing: Targets = model.targets()
    for file, names in _shards(path).items():
        for name, stored in _tensors(file, names):
            target = missing.pop(name, None)
            if target is not None:
                _load(target, stored, name, file)
            elif not model.spare(name):
                raise CheckpointError(
                    f"{file} has the tensor {name!r}, which the model described by config.json "
                    "has no place for (or it is there twice).",
                    cure="config.json and the weights are not of the same checkpoint.",
                )
    if missing:
        shown = ", ".join(sorted(missing)[:3]) + (" …" if len(missing) > 3 else "")
        raise CheckpointError(
            f"{path} lacks {len(missing)} tensors: {shown}.",
            cure="The checkpoint is incomplete, or config.json is not its own. " + DOWNLOAD,
        )


@dataclass(frozen=True, slots=True)
class _Stored:
    """A tensor in an open file, of which nothing is read before it is asked for."""

    file: Any
    """a safe_open"""
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.file.get_slice(self.name).get_shape())

    def read(self, target: Target) -> torch.Tensor:
        found: torch.Tensor
        if target.partial:
            found = self.file.get_slice(self.name)[target.index]
        else:
            found = self.file.get_tensor(self.name)
        return found


def _load(target: Target, stored: _Stored, name: str, file: Path) -> None:
    if stored.shape != target.shape:
        raise CheckpointError(
            f"{file}: {name} has the shape {stored.shape}, but config.json asks for "
            f"{target.shape}.",
            cure="config.json and the weights are not of the same checkpoint.",
        )
    for part in (target, *target.others):
        tensor = stored.read(part)
        _check_dtype(tensor, name, file)
        part.load(tensor)


def _check_dtype(tensor: torch.Tensor, name: str, file: Path) -> None:
    if not tensor.dtype.is_floating_point or tensor.dtype.itemsize < 2:
        raise UnsupportedError(
            f"{file}: {name} is stored as {tensor.dtype}; quantized weights are not supported.",
            cure="Use the original checkpoint in bfloat16, float16 or float32.",
        )


def _shards(path: Path) -> dict[Path, list[str] | None]:
    """Weight files, each with the tensors that the index promises (None: no index)."""
    if (path / INDEX).is_file():
        weight_map = _read_json(path / INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise CheckpointError(f"{path / INDEX} has no weight_map.", cure=DOWNLOAD)
        shards: dict[Path, list[str] | None] = {}
        for name, file in sorted(weight_map.items()):
            names = shards.setdefault(path / Path(str(file)).name, [])
            assert names is not None
            names.append(name)
        return shards
    if (path / SINGLE).is_file():
        return {path / SINGLE: None}
    if any(path.glob("*.bin")) or any(path.glob("*.pth")):
        raise CheckpointError(
            f"{path} has its weights in pickle files (.bin, .pth), which can run any code.",
            cure="Convert them to safetensors: save_pretrained of transformers does it.",
        )
    raise CheckpointError(f"{path} has no weights: neither {SINGLE} nor {INDEX}.", cure=DOWNLOAD)


def _tensors(file: Path, names: list[str] | None) -> Iterator[tuple[str, _Stored]]:
    """Tensors of one file, mapped, one at a time."""
    if not file.is_file():
        raise CheckpointError(f"The weight file {file} is missing.", cure=DOWNLOAD)
    try:
        with safe_open(file, framework="pt") as opened:
            present = set(opened.keys())
            for name in names if names is not None else sorted(present):
                if name not in present:
                    raise CheckpointError(
                        f"{file} lacks the tensor {name!r} that {INDEX} promises.", cure=DOWNLOAD
                    )
                yield name, _Stored(opened, name)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file} is damaged or incomplete ({error}).", cure=DOWNLOAD
        ) from error


def _read_json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{file} is missing.", cure="A checkpoint folder has config.json and safetensors."
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}.", cure=DOWNLOAD) from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{file} is not a JSON object.", cure=DOWNLOAD)
    return data
