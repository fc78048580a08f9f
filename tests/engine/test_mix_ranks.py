"""Must hold 1 of tensor and pipeline parallelism: on 2 and 4 ranks, 2 stages, and both, the
oracle's tokens for every family and mix, logits within 1e-4, and with quantized weights logits near
those of one rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch

from penstock.engine.load import NATIVE, NATIVE_HEADS
from penstock.engine.weights import load_model
from penstock.kernels import cpu
from penstock.registry import ATTENTION_BACKENDS, FORMATS
from tests import oracle
from tests.dense import Sequence
from tests.engine.test_mix import ALL, COVER, CPU, NEW, Mix, asked, run
from tests.ranks import Team

SHAPES = {f"{family}-{shape.name}": (family, shape) for family, shape in oracle.shapes()}
ONE_EACH = ["llama-tied", "mistral-window", "qwen2-untied", "qwen3-windows", "smollm3-untied"]
ONE_EACH += ["qwen3_moe-all-sparse"]
"""1 and 2 KV heads: fewer than ranks, as many, and more; biases, windows, a tied head, experts"""
BACKENDS = ("torch", NATIVE)
WAYS = ("shared_memory", "distributed")
TEAMS = {"tp2": (2, 1), "tp4": (4, 1), "pp2": (1, 2), "tp2-pp2": (2, 2)}


@pytest.fixture(scope="module")
def teams() -> Iterator[dict[str, Team]]:
    torch.set_num_threads(1)
    made = {name: Team(*degrees) for name, degrees in TEAMS.items()}
    yield made
    for team in made.values():
        team.end()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


def answered(
    family: str, shape: oracle.Shape, folder: Path
) -> tuple[Path, list[list[int]], list[list[int]]]:
    """A checkpoint, prompts and the oracle's answers, from the shape's seed on the first for which
    no two logits are too near to compare ids."""
    for seed in range(shape.seed, shape.seed + 20):
        path = oracle.make_checkpoint(family, shape, seed, folder)
        try:
            prompts = asked(path, seed)
            return path, prompts, [oracle.greedy(path, prompt, NEW) for prompt in prompts]
        except AssertionError:
            continue
    raise AssertionError(f"{family}-{shape.name}: no seed fits")


def check(team: Team, name: str, backend: str, way: str, mixes: list[Mix], folder: Path) -> None:
    family, shape = SHAPES[name]
    if backend == NATIVE:
        if (reason := cpu.available()) is not None:
            pytest.skip(reason)
        if shape.fields.get("head_dim", 12) not in NATIVE_HEADS:
            shape = replace(shape, name=f"{shape.name}-16", fields=shape.fields | {"head_dim": 16})
    if family == "olmo2" and team.size > 1:
        backend = "torch"  # as at a start: the programs have no norm over the heads of all ranks
    path, prompts, expected = answered(family, shape, folder)
    model = team.load(path, way=way, backend=backend)
    for prompt in prompts[:8]:
        answer = oracle.answer(path, tuple(prompt), NEW)
        logits = team.feed(prompt + answer.ids[:-1])
        torch.testing.assert_close(logits, answer.logits, rtol=0, atol=oracle.TOLERANCE)
    for mix in mixes:
        out, preemptions = run(model, team.backend, mix, prompts, team)
        assert out == expected, mix
        assert not mix.preempt or preemptions, f"{mix} preempted nobody"


@pytest.mark.parametrize("size", TEAMS)
@pytest.mark.parametrize(("name", "mix"), list(zip(ONE_EACH, COVER, strict=False)))
def test_the_same_tokens_on_every_family(
    teams: dict[str, Team], size: str, name: str, mix: Mix, folder: Path
) -> None:
    turn = list(TEAMS).index(size) + ONE_EACH.index(name)  # each sees both backends
    backend = BACKENDS[turn % 2]
    check(teams[size], name, backend, "shared_memory", [mix], folder)


@pytest.mark.parametrize(("size", "backend"), [("tp4", "torch"), ("tp2-pp2", NATIVE)])
def test_the_same_tokens_over_gloo(
    teams: dict[str, Team], size: str, backend: str, folder: Path
) -> None:
    check(teams[size], "llama-gqa", backend, "distributed", COVER[:1], folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "way", "backend", "name"), list(product(TEAMS, WAYS, BACKENDS, SHAPES))
)
def test_the_same_tokens_for_a_cover_of_mixes_of_every_shape(
    teams: dict[str, Team], size: str, way: str, backend: str, name: str, folder: Path
) -> None:
    check(teams[size], name, backend, way, COVER, folder)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "backend"), list(product(TEAMS, BACKENDS)))
def test_the_same_tokens_for_every_mix(
    teams: dict[str, Team], size: str, backend: str, folder: Path
) -> None:
    check(teams[size], "qwen3-windows", backend, "shared_memory", ALL, folder)


@pytest.mark.parametrize("size", ["tp2", "tp4", "tp2-pp2"])
@pytest.mark.parametrize("format", ["none", "int8", "int4"])
def test_a_row_does_not_depend_on_its_batch(
    teams: dict[str, Team], size: str, format: str, folder: Path
) -> None:
    """Our kernels' promise holds over ranks, bit for bit, for sums have one order."""
    if (reason := cpu.available()) is not None:
        pytest.skip(reason)
    path = oracle.make_checkpoint("llama", QUANTIZED, 0, folder)
    teams[size].load(path, format, backend=NATIVE)
    ids = oracle.prompts(0, 6, 320)[5]
    whole = teams[size].feed(ids).clone()
    for length in (1, 2, 17):
        assert torch.equal(teams[size].feed(ids[:length]), whole[:length])


QUANTIZED = oracle.Shape(
    "wide",
    "LlamaConfig",
    fields={
        "hidden_size": 128,
        "intermediate_size": 160,
        "num_attention_heads": 4,
        "head_dim": 32,
        "attention_bias": True,
    },
)
"""Four heads of 32, so that int4's groups of 32 can be shared by up to four ranks."""
NOISE = {"int8": 0.04, "int4": 0.15}
"""Most distance of logits from those of one rank, as a part of their spread: a rank brings its own
inputs into the format, and so rounds elsewhere."""
WORSE = 1.15
"""Most distance from the unquantized logits, as a multiple of one rank's."""
GAP = 0.05


@pytest.mark.parametrize("size", ["tp2", "tp4"])
@pytest.mark.parametrize("name", ["int8", "int4"])
def test_quantized_logits_stay_near_those_of_one_rank(
    teams: dict[str, Team], size: str, name: str, folder: Path
) -> None:
    path = oracle.make_checkpoint("llama", QUANTIZED, 0, folder)
    backend = ATTENTION_BACKENDS.load("torch")()
    ids = oracle.prompts(0, 6, 320)[5]

    def alone(format: str) -> torch.Tensor:
        model = load_model(path, torch.float32, CPU, backend, FORMATS.load(format)())
        return Sequence(model, backend, 16).feed(ids)

    plain, one = alone("none"), alone(name)
    teams[size].load(path, name)
    found = teams[size].feed(ids)
    assert 0 < distance(found, one) < NOISE[name] * one.std()
    assert distance(found, plain) < WORSE * distance(one, plain)


def distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a - b).square().mean().sqrt()


@pytest.mark.parametrize(
    ("size", "name", "mix"), [("tp2-pp2", "int8", COVER[0]), ("tp4", "int4", COVER[4])]
)
def test_quantized_tokens_do_not_depend_on_the_mix(
    teams: dict[str, Team], size: str, name: str, mix: Mix, folder: Path
) -> None:
    """The same format at the same degree, one request at a time, is the oracle."""
    path = oracle.make_checkpoint("llama", QUANTIZED, 0, folder)
    team = teams[size]
    model = team.load(path, name)
    prompts, expected = [], []
    for prompt in oracle.prompts(0, 20, model.vocab_size):
        ids = list(prompt)
        gap = float("inf")
        for _ in range(NEW):
            best = team.feed(ids)[-1].topk(2)
            gap = min(gap, float(best.values[0] - best.values[1]))
            ids.append(int(best.indices[0]))
        if gap > GAP:
            prompts.append(prompt)
            expected.append(ids[len(prompt) :])
    assert len(prompts) >= 8
    out, _ = run(model, team.backend, mix, prompts, team)
    assert out == expected
