"""The command that starts a replica of a plan, in flags that this version has."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping

from penstock.sizing.sizer import Plan, Setup

DTYPES: Mapping[str, str] = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def lacks(setup: Setup, formats: Mapping[str, Collection[str]], flags: Collection[str]) -> str:
    """What this version lacks to run a setup; empty when it can.

    formats: by kind of device, names for --quantization that it has kernels for; flags: names of
    options, as `tensor_parallel_size`.
    """
    name, kind = setup.precision.name, setup.device.kind
    if name not in DTYPES and name not in formats[kind]:
        return f"this version has no {name} weights on a {kind.upper()}"
    for degree, flag in ((setup.tp, "tensor_parallel_size"), (setup.pp, "pipeline_parallel_size")):
        if degree > 1 and flag not in flags:
            return f"this version has no --{flag.replace('_', '-')}"
    return ""


def serve_command(plan: Plan, model: str, longest: int) -> str:
    """`penstock serve …` of one replica. longest: tokens of a prompt with its output."""
    setup = plan.setup
    name = setup.precision.name
    number = ["--dtype", DTYPES[name]] if name in DTYPES else ["--quantization", name]
    words = [
        "penstock", "serve", model, *number,
        "--max-num-seqs", str(plan.max_seqs),
        "--max-num-batched-tokens", str(setup.max_tokens),
        "--max-model-len", str(longest),
    ]  # fmt: skip
    words += ["--tensor-parallel-size", str(setup.tp)] if setup.tp > 1 else []
    words += ["--pipeline-parallel-size", str(setup.pp)] if setup.pp > 1 else []
    return shlex.join(words)
