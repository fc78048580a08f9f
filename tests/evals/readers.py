"""Readers of tiny random checkpoints."""

from __future__ import annotations

from pathlib import Path

import torch

from penstock.engine.weights import load_model
from penstock.evals.reader import Reader
from penstock.registry import ATTENTION_BACKENDS, FORMATS
from tests import oracle

CPU = torch.device("cpu")


def checkpoint(folder: Path, seed: int = 0, family: str = "llama", **fields: object) -> Path:
    torch.set_num_threads(1)
    shape = oracle.FAMILIES[family][0]
    made = oracle.Shape(f"{shape.name}-{seed}", shape.config, seed, shape.fields | fields)
    return oracle.make_checkpoint(family, made, seed, folder)


def reader(path: Path, quantization: str = "none", context: int = 64) -> Reader:
    backend = ATTENTION_BACKENDS.load("torch")()
    model = load_model(path, torch.float32, CPU, backend, FORMATS.load(quantization)())
    return Reader(model, backend, torch.float32, CPU, context)
