"""A checkpoint in the form in which this machine computes it best.

On a CPU with our kernels the model becomes a program of them (`layers/native`); everywhere else,
and where a model has what the kernels lack, torch's operators compute it. `--attention-backend`
chooses by hand: `cpu` the program, `torch` and `torch-reference` torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from penstock.attention.base import AttentionBackend
from penstock.config import Config
from penstock.engine.packs import UNUSED, Kept, huge_pages, keep
from penstock.engine.weights import build_model, check_room, fill, read_plan
from penstock.errors import CheckpointError, ConfigError, UnsupportedError
from penstock.kernels import cpu
from penstock.kernels.cpu.ops import GATED
from penstock.layers.decoder import DecoderPlan
from penstock.models.base import CausalLM, LoadableLM, ModelPlan, SelfLoading
from penstock.parallel.ranks import ALONE, RankGroup
from penstock.quant.base import LinearFormat
from penstock.registry import ATTENTION_BACKENDS, FORMATS

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
KV_DTYPES = {
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float32": torch.float32,
    "fp32": torch.float32,
    "int8": torch.int8,
}
NATIVE = "cpu"
"""the backend whose models run as programs"""
NATIVE_HEADS = range(16, 257, 16)


def choose_device(config: Config, index: int = 0, number: int = 0) -> torch.device:
    """The config's device; `auto` is a GPU where there is one, another for each engine (index) as
    far as there are some. Each process (number) of an engine has a GPU of its own. Raises
    ConfigError."""
    name = config.engine.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cuda" and config.engine.processes == 1:
            name = f"cuda:{index % torch.cuda.device_count()}"
        elif name == "cuda":
            name = f"cuda:{index * config.engine.processes}"
    if number and name.startswith("cuda"):
        first = name.partition(":")[2] or "0"
        name = f"cuda:{int(first) + number}" if first.isdecimal() else name
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"--device {name} is not there: {str(error).splitlines()[0]}",
            cure="Use cpu, or leave the flag away.",
            param="device",
        ) from error
    return device


def choose_dtype(config: Config, raw: dict[str, Any]) -> torch.dtype:
    """The config's dtype; `auto` is the checkpoint's own. Raises CheckpointError."""
    name = config.model.dtype
    if name == "auto":
        name = str(raw.get("dtype") or raw.get("torch_dtype") or "float32")
    dtype = DTYPES.get(name.removeprefix("torch."))
    if dtype is None:
        raise CheckpointError(
            f"The checkpoint's dtype {name!r} is not supported.",
            cure="Give --dtype bfloat16 or --dtype float32.",
            param="dtype",
        )
    return dtype


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model with its weights in place, not yet packed for the kernels; or with none, where they
    are kept packed."""

    model: LoadableLM
    backend: AttentionBackend
    dtype: torch.dtype
    kv_dtype: torch.dtype
    device: torch.device
    format: LinearFormat
    how: str
    """what computes it"""
    kept: Kept = UNUSED
    """prepared weights of an earlier start, or where they will be kept"""

    @property
    def weight_bytes(self) -> int:
        """Before anything is packed."""
        return sum(target.nbytes for target in self.model.targets().values())

    def weights_note(self, by_rank: list[int]) -> str:
        """by_rank: their weight_bytes."""
        note = " + ".join(f"{stored / 2**20:.1f}" for stored in by_rank)
        note = f"weights of {note} MiB"
        if self.format.name != "none":
            note += f", quantized at load to {self.format.name}"
        return note

    def ready(self, max_tokens: int, max_rows: int, max_len: int, threads: int | None) -> CausalLM:
        """The model to run; `model` must not be used afterwards.

        max_tokens: of one step; max_rows: whose logits are wanted at once; max_len: tokens of the
        longest request; threads: of the kernels, None for one each physical core.
        """
        if self.backend.name != NATIVE:
            return self.model
        from penstock.layers.decoder import Decoder
        from penstock.layers.native import NativeDecoder

        assert isinstance(self.model, Decoder)
        return NativeDecoder(self.model, max_tokens, max_rows, max_len, threads, self.kept.store)


def load(
    config: Config,
    folder: Path,
    raw: dict[str, Any],
    device: torch.device,
    ranks: RankGroup = ALONE,
    weights: bool = True,
) -> Loaded:
    """Read the checkpoint in `folder`, whose config.json is `raw`: this rank's part of it. Without
    `weights` only whether it could be done is found out.

    Raises CheckpointError, UnknownArchitectureError, UnsupportedError, ConfigError.
    """
    dtype = choose_dtype(config, raw)
    name = config.engine.attention_backend
    longest = config.model.max_model_len
    impl = config.model.model_impl
    plan = read_plan(raw, folder / "config.json", longest, impl)
    against = refusal(plan, dtype, device, ranks)
    if name == NATIVE and against is not None:
        raise UnsupportedError(
            f"--attention-backend {NATIVE} cannot run this: {against}.",
            cure="Leave the flag away, and torch computes it.",
            param="attention_backend",
        )
    if name == "auto":
        name = NATIVE if against is None else "torch"
    backend: AttentionBackend = ATTENTION_BACKENDS.load(name)()
    linear_format: LinearFormat = FORMATS.load(config.model.quantization)()
    model = build_model(folder, dtype, device, backend, linear_format, ranks, longest, impl)
    by = "torch's operators" if not isinstance(model, SelfLoading) else "transformers' model"
    kv_dtype = KV_DTYPES.get(config.engine.kv_cache_dtype, dtype)
    how = _how(name, against, by)
    loaded = Loaded(model, backend, dtype, kv_dtype, device, linear_format, how)
    if not weights:
        return loaded
    if name == NATIVE:
        loaded = replace(loaded, kept=_kept(config, folder, loaded, ranks))
    if not loaded.kept.hit:
        fill(model, folder, device, ranks)
    elif loaded.kept.fills:
        check_room(model, device, ranks)
    return loaded


def _kept(config: Config, folder: Path, loaded: Loaded, ranks: RankGroup) -> Kept:
    """Pages of a file are shared, but small: with one engine the speed of huge ones counts more."""
    memory = config.model.weights_memory
    if memory == "auto":
        alone = config.engine.data_parallel_size == 1
        memory = "copied" if alone and huge_pages() else "mapped"
    return keep(config.model, folder, loaded.dtype, ranks, memory == "copied", loaded.weight_bytes)


def _how(name: str, against: str | None, by: str) -> str:
    if name == NATIVE:
        isa = cpu.isas()[-1]
        return f"computed by our CPU kernels ({isa}), bit for bit the same in any batch"
    why = f" ({against})" if against else ""
    return (
        f"computed by {by}{why}: results are not bitwise equal between batches of different shape"
    )


def refusal(
    plan: ModelPlan, dtype: torch.dtype, device: torch.device, ranks: RankGroup = ALONE
) -> str | None:
    """Why the CPU kernels do not run this model here; None where they do."""
    if device.type != "cpu":
        return f"it runs on {device}"
    if dtype not in (torch.float32, torch.bfloat16):
        return f"the CPU kernels have no {dtype}"
    if not isinstance(plan, DecoderPlan):
        return "the CPU kernels do not know this architecture"
    if plan.act not in GATED:
        return f"the CPU kernels have no {plan.act}"
    if plan.head_dim not in NATIVE_HEADS:
        return f"the CPU kernels have no heads of {plan.head_dim}"
    if plan.whole_qk_norm and ranks.size > 1:
        return "the CPU kernels have no norm over the heads of several ranks"
    return cpu.available()
