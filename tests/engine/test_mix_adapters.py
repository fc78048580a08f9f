"""Many adapters in one batch: the tokens of each are those of its merged weights in transformers,
for every mix of chunk size, prefix cache, batch, preemption and depth; and our kernels' bits do not
depend on who else has which adapter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from penstock.attention.base import AdapterRows, AttnBatch, GroupTables
from penstock.core.request import Adapter
from penstock.engine.adapters import AdapterStore
from penstock.engine.kv import allocate_caches
from penstock.engine.load import NATIVE
from penstock.engine.weights import load_model
from penstock.kernels import cpu
from penstock.layers.decoder import Decoder
from penstock.layers.native import NativeDecoder
from penstock.quant.base import LinearFormat
from penstock.quant.int4 import Int4
from penstock.quant.int8 import Int8
from penstock.quant.plain import PLAIN
from penstock.registry import ATTENTION_BACKENDS
from tests import oracle
from tests.adapters import ALL, ATTENTION, make_adapter, merge
from tests.engine import test_mix
from tests.engine.test_mix import BLOCK, CHUNKS, CONTEXT, CPU, MAX_RANK, NEW, Mix
from tests.ranks import Team

BACKENDS = pytest.mark.parametrize("backend", ["torch", NATIVE])
MODELS = {
    "llama": ("llama", oracle.Shape("lora", "LlamaConfig", 1, {"head_dim": 16}), ALL),
    "gemma2": (
        "gemma2",
        oracle.Shape("lora", "Gemma2Config", 0, oracle.GEMMA | {"sliding_window": 8}),
        ALL,
    ),
    "phi3": (
        "phi3",
        oracle.Shape("lora", "Phi3Config", 0, {"head_dim": 16}),
        ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
    ),
    "granite": (
        "granite",
        oracle.Shape("lora", "GraniteConfig", 0, oracle.GRANITE | {"head_dim": 16}),
        ALL,
    ),
    "qwen3_moe": (
        "qwen3_moe",
        oracle.Shape("lora", "Qwen3MoeConfig", 0, oracle.QWEN3_MOE),
        ATTENTION,
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapters")


def made(name: str, folder: Path) -> tuple[Path, list[Adapter | None]]:
    """A checkpoint, and what its requests may want: nothing, or one of three adapters."""
    family, shape, matrices = MODELS[name]
    path = oracle.make_checkpoint(family, shape, shape.seed, folder)
    ranks = {11: 4, 12: 8, 13: 1}
    adapters = [make_adapter(path, folder, seed, rank, matrices) for seed, rank in ranks.items()]
    return path, [None, *adapters]


def asked(
    path: Path, wanted: list[Adapter | None]
) -> tuple[list[list[int]], list[Adapter | None], list[list[int]]]:
    """Prompts, an adapter for each, and the oracle's answers where they can be compared; several
    prompts begin alike, with the same adapter and with others."""
    prompts = oracle.prompts(3, 10, 320)
    prompts += [prompts[5][:70], prompts[5][:70], prompts[5][:50], prompts[5][:50]]
    found = []
    for i, prompt in enumerate(prompts):
        for adapter in (wanted[i % 4], wanted[(i + 1) % 4]):
            try:
                found.append((prompt, adapter, truth(path, prompt, adapter)))
            except AssertionError:
                continue
    assert len({adapter and adapter.name for _, adapter, _ in found}) == 4
    assert len(found) >= 20
    return [p for p, _, _ in found], [a for _, a, _ in found], [t for _, _, t in found]


def truth(path: Path, prompt: list[int], adapter: Adapter | None) -> list[int]:
    return oracle.greedy(path if adapter is None else merge_once(path, adapter), prompt, NEW)


def merge_once(path: Path, adapter: Adapter) -> Path:
    found = Path(f"{adapter.path}-merged")
    return found if found.exists() else merge(path, adapter)


def prepare(
    path: Path, backend: str, slots: int, form: LinearFormat = PLAIN
) -> tuple[Decoder | NativeDecoder, test_mix.Backend]:
    attention: test_mix.Backend = ATTENTION_BACKENDS.load(backend)()
    model = load_model(path, torch.float32, CPU, attention, form)
    assert isinstance(model, Decoder)
    model.adapt(slots, MAX_RANK)
    if backend == NATIVE:
        return NativeDecoder(model, max(CHUNKS), 32, CONTEXT, threads=2), attention
    return model, attention


def check(name: str, backend: str, mixes: list[Mix], slots: int, folder: Path) -> None:
    torch.set_num_threads(1)
    if backend == NATIVE and (reason := cpu.available()) is not None:
        pytest.skip(reason)
    path, wanted = made(name, folder)
    prompts, adapters, expected = asked(path, wanted)
    model, attention = prepare(path, backend, slots)
    for mix in mixes:
        out, preemptions = test_mix.run(
            model, attention, mix, prompts, adapters=adapters, slots=slots
        )
        assert out == expected, mix
        assert not mix.preempt or preemptions, f"{mix} preempted nobody"


@BACKENDS
def test_each_gets_its_own_adapters_tokens(backend: str, folder: Path) -> None:
    check("llama", backend, [test_mix.COVER[0]], 3, folder)


@BACKENDS
def test_more_adapters_than_slots_take_turns(backend: str, folder: Path) -> None:
    check("llama", backend, [test_mix.COVER[1]], 1, folder)


@pytest.mark.slow
@BACKENDS
@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("name", MODELS)
def test_a_cover_of_mixes_of_every_kind_of_model(
    name: str, slots: int, backend: str, folder: Path
) -> None:
    check(name, backend, test_mix.COVER, slots, folder)


@pytest.fixture(scope="module")
def teams() -> Iterator[dict[str, Team]]:
    torch.set_num_threads(1)
    made = {name: Team(*degrees) for name, degrees in (("tp2", (2, 1)), ("pp2", (1, 2)))}
    yield made
    for team in made.values():
        team.end()


@pytest.mark.parametrize(("size", "backend"), [("tp2", NATIVE), ("pp2", "torch")])
def test_ranks_and_stages(teams: dict[str, Team], size: str, backend: str, folder: Path) -> None:
    if backend == NATIVE and (reason := cpu.available()) is not None:
        pytest.skip(reason)
    path, wanted = made("llama", folder)
    prompts, adapters, expected = asked(path, wanted)
    team = teams[size]
    model = team.load(path, backend=backend, slots=2, rank=MAX_RANK)
    mix = test_mix.COVER[0]
    out, _ = test_mix.run(model, team.backend, mix, prompts, team, adapters=adapters, slots=2)
    assert out == expected


@pytest.mark.parametrize("form", [PLAIN, Int8(), Int4()], ids=lambda form: form.name)
@pytest.mark.parametrize("name", ["llama", "gemma2", "qwen3_moe"])
def test_company_changes_no_bit(name: str, form: LinearFormat, folder: Path) -> None:
    """Hidden states of tokens with adapters and without, beside each other and alone."""
    if (reason := cpu.available()) is not None:
        pytest.skip(reason)
    path, wanted = made(name, folder)
    model, backend = prepare(path, NATIVE, 3, form)
    store = AdapterStore(MAX_RANK)
    for slot, adapter in enumerate(wanted[1:]):
        assert adapter is not None
        model.set_adapter(slot, store.get(adapter))
    prompts = [prompt[:20] for prompt in oracle.prompts(5, 8, 320)]
    places = [-1, 0, 1, 2, 0, -1, 2, 1]
    together = hidden(model, backend, prompts, places)
    for prompt, place, found in zip(prompts, places, together, strict=True):
        assert torch.equal(hidden(model, backend, [prompt], [place])[0], found)
    plain = hidden(model, backend, prompts, [-1] * 8)
    for place, found, base in zip(places, together, plain, strict=True):
        assert torch.equal(found, base) == (place < 0)


def hidden(
    model: Decoder | NativeDecoder,
    backend: test_mix.Backend,
    prompts: list[list[int]],
    places: list[int],
) -> list[torch.Tensor]:
    """Of whole prompts in one step; places: the slots of their adapters."""

    shape = (model.num_kv_heads, model.head_dim, torch.float32, CPU)
    caches = allocate_caches(backend, model.kv_groups, 2 * len(prompts), BLOCK, *shape)
    counts = [len(prompt) for prompt in prompts]
    table = torch.arange(2 * len(prompts), dtype=torch.int32).view(-1, 2)
    positions = torch.cat([torch.arange(count) for count in counts])
    slots = torch.cat(
        [
            row[torch.arange(n) // BLOCK].long() * BLOCK + torch.arange(n) % BLOCK
            for row, n in zip(table, counts, strict=True)
        ]
    )
    starts = torch.tensor([0, *counts]).cumsum(0).int()
    of_token = torch.tensor(places).repeat_interleave(torch.tensor(counts))
    order = of_token.argsort(stable=True)
    begins = [int((of_token < slot).sum()) for slot in range(4)]
    rows = AdapterRows(order[begins[0] :], [begin - begins[0] for begin in begins])
    groups = tuple(GroupTables(table, slots) for _ in model.kv_groups)
    lens = torch.tensor(counts).int()
    adapted = rows if max(places) >= 0 else None
    batch = AttnBatch(starts, lens, groups, counts, counts, adapters=adapted)
    ids = torch.tensor([token for prompt in prompts for token in prompt])
    with torch.inference_mode():
        found = model.forward(ids, positions, caches, batch).clone()
    return list(torch.split(found, counts))
