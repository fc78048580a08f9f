"""A checkpoint with its layers in int8, as vLLM loads it (compressed-tensors, `int-quantized`).

    python -m benchmarks.cpu.w8a8 CHECKPOINT OUT

A scale an output, symmetric; activations by token, quantized while running. Embedding and head stay
in bfloat16: vLLM has no other choice for them here.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

WEIGHTS = "model.safetensors"


def quantize(tensors: dict[str, Any]) -> dict[str, Any]:
    """Every projection in int8, with its scales beside it."""
    import torch

    found = {}
    for name, tensor in tensors.items():
        if not name.endswith("_proj.weight"):
            found[name] = tensor
            continue
        w = tensor.float()
        scale = (w.abs().amax(1, keepdim=True) / 127).clamp(min=1e-8)
        found[name] = (w / scale).round().clamp(-127, 127).to(torch.int8)
        found[f"{name}_scale"] = scale
    return found


def settings() -> dict[str, Any]:
    """For config.json."""
    common = {"num_bits": 8, "type": "int", "symmetric": True}
    group = {
        "targets": ["Linear"],
        "weights": common | {"strategy": "channel", "dynamic": False},
        "input_activations": common | {"strategy": "token", "dynamic": True},
    }
    return {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": group},
    }


def main() -> None:
    from safetensors.torch import load_file, save_file

    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for file in given.checkpoint.iterdir():
        if file.name not in (WEIGHTS, "config.json"):
            shutil.copy(file, given.out)
    tensors = quantize(load_file(given.checkpoint / WEIGHTS))
    save_file(tensors, given.out / WEIGHTS, metadata={"format": "pt"})
    config = json.loads((given.checkpoint / "config.json").read_text())
    config["quantization_config"] = settings()
    (given.out / "config.json").write_text(json.dumps(config, indent=1))


if __name__ == "__main__":
    main()
