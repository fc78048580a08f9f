"""The command of a plan is one that this version takes."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from penstock import settings
from penstock.cli.plan import KERNELS
from penstock.config.tree import all_options
from penstock.sizing.command import lacks, serve_command
from penstock.sizing.demand import rates_of
from penstock.sizing.hardware import choose, table
from penstock.sizing.precision import PRECISIONS
from penstock.sizing.sizer import Plan, Scope, Setup, size
from penstock.workload.archetypes import chatbot
from penstock.workload.definition import Cost, Window
from tests.sizing.models import LLAMA_8B, shape

FLAGS = {option.name for option in all_options()}
H100 = table()["H100"]


def plan(precision: str) -> Plan:
    workload = replace(
        chatbot(), window=Window("2026-11-02", 86400.0), cost=Cost(max_usd_per_mtok_blended=9.0)
    )
    scope = Scope(choose(["H100"], table()), [PRECISIONS[precision]])
    return size(workload, shape(LLAMA_8B), rates_of(workload), scope).plans[0]


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_the_settings_take_the_command(precision: str) -> None:
    words = shlex.split(serve_command(plan(precision), "my model", 4096))
    assert words[:3] == ["penstock", "serve", "my model"]
    pairs = dict(zip(words[3::2], words[4::2], strict=True))
    flags = {name.removeprefix("--").replace("-", "_"): value for name, value in pairs.items()}
    config = settings.load(flags, environment={}).config
    assert config.model.max_model_len == 4096
    assert config.engine.max_num_batched_tokens == plan(precision).setup.max_tokens
    assert config.model.quantization == ("int8" if precision == "int8" else "none")


def test_what_this_version_lacks_is_told() -> None:
    def told(precision: str, tp: int = 1) -> str:
        return lacks(Setup(H100, PRECISIONS[precision], tp, 1, 8192), KERNELS, FLAGS)

    assert told("bf16") == ""
    assert told("int4") == "this version has no int4 weights on a GPU"
    cpu = Setup(table()["Zen4-2vCPU"], PRECISIONS["int4"], 1, 1, 256)
    assert lacks(cpu, KERNELS, FLAGS) == ""
    split = Setup(H100, PRECISIONS["bf16"], 2, 1, 1)
    assert lacks(split, KERNELS, ()) == "this version has no --tensor-parallel-size"
    assert lacks(split, KERNELS, {"tensor_parallel_size"}) == ""
