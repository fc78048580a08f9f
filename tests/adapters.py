"""Random adapters in PEFT's format, and the checkpoints that they make of a model when they are
merged into its weights: what transformers then answers is the oracle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from penstock.core.request import Adapter
from penstock.engine.client import AdapterRoom
from penstock.engine.peft import check
from penstock.engine.weights import read_config, read_plan
from penstock.layers.decoder import DecoderPlan

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
ALL = (*ATTENTION, "gate_proj", "up_proj", "down_proj")
NAMES = {name: "self_attn" if name in (*ATTENTION, "qkv_proj") else "mlp" for name in ALL} | {
    "qkv_proj": "self_attn",
    "gate_up_proj": "mlp",
}


def room(model: Path, slots: int = 2, max_rank: int = 8) -> AdapterRoom:
    plan = read_plan(read_config(model), model / "config.json")
    assert isinstance(plan, DecoderPlan)
    return AdapterRoom(slots, max_rank, len(plan.windows), plan.adaptable)


def make_adapter(
    model: Path,
    folder: Path,
    seed: int,
    rank: int = 4,
    matrices: tuple[str, ...] = ALL,
    **fields: Any,
) -> Adapter:
    """Save one for a checkpoint; its effect is about as large as that of the weights."""
    generator = torch.Generator().manual_seed(seed)
    where, tensors = room(model), {}
    for layer in range(where.layers):
        for name in matrices:
            outputs, inputs = where.matrices[name]
            prefix = f"base_model.model.model.layers.{layer}.{NAMES[name]}.{name}"
            a = torch.randn(rank, inputs, generator=generator) * inputs**-0.5
            tensors[f"{prefix}.lora_A.weight"] = a
            tensors[f"{prefix}.lora_B.weight"] = torch.randn(outputs, rank, generator=generator) / 2
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": list(matrices),
        "bias": "none",
    }
    path = folder / f"{model.name}-adapter-{seed}"
    path.mkdir(exist_ok=True)
    (path / "adapter_config.json").write_text(json.dumps(config | fields))
    save_file(tensors, path / "adapter_model.safetensors")
    return check(f"adapter-{seed}", str(path), where)


def merge(model: Path, adapter: Adapter, scale: float = 2.0) -> Path:
    """The checkpoint with an adapter's weights added, beside the adapter."""
    path = Path(f"{adapter.path}-merged")
    shutil.copytree(model, path, dirs_exist_ok=True)
    weights = load_file(path / "model.safetensors")
    added = load_file(Path(adapter.path) / "adapter_model.safetensors")
    for name, a in added.items():
        if ".lora_A." in name:
            target = name.removeprefix("base_model.model.").replace(".lora_A.weight", ".weight")
            b = added[name.replace("lora_A", "lora_B")]
            weights[target] = weights[target] + scale * (b @ a)
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    return path
