"""A recorded decoder answers as the torch decoder does, whatever its plan."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from penstock.attention.base import AttentionBackend, AttnBatch, GroupTables
from penstock.attention.cpu import CpuAttention
from penstock.attention.torch_reference import TorchReference
from penstock.kernels import cpu
from penstock.kernels.cpu.pack import PackedWeight
from penstock.layers.decoder import Decoder, DecoderPlan
from penstock.layers.moe import Experts
from penstock.layers.native import NativeDecoder
from penstock.layers.rotary import Rope
from penstock.models.base import CausalLM
from penstock.quant.base import LinearFormat
from penstock.quant.int4 import Int4
from penstock.quant.int8 import Int8
from penstock.quant.plain import PLAIN

pytestmark = pytest.mark.skipif(cpu.available() is not None, reason=str(cpu.available()))

CPU = torch.device("cpu")
BLOCK, BLOCKS = 16, 40
EXPERTS: dict[str, object] = {"experts": Experts(5, 40, 2), "sparse": (True,) * 3}
PLANS: dict[str, dict[str, object]] = {
    "plain": {},
    "tied": {"tied": True},
    "biases": {"qkv_bias": True, "out_bias": True, "mlp_bias": True},
    "qk-norm": {"qk_norm": True},
    "windows": {"windows": (0, 20, 0), "rotary": (True, True, False)},
    "yarn": {"rope": Rope(kind="yarn", factor=4.0, original_max=64, attention_factor=1.1)},
    "partial-rotary": {"rope": Rope(partial=0.5)},
    "gemma": {
        "norms": "both",
        "act": "gelu_pytorch_tanh",
        "windows": (20, 0, 20),
        "local_rope": Rope(100.0),
        "attention_scale": 0.2,
        "attention_softcap": 5.0,
        "logit_softcap": 2.0,
        "embed_scale": 8.0,
        "norm_offset": 0.1,
    },
    "post-norm": {"norms": "post", "qk_norm": True, "whole_qk_norm": True},
    "multipliers": {"embed_scale": 6.0, "residual_scale": 0.3, "logit_scale": 3.0},
    "experts": EXPERTS,
    "shares-of-all": {
        "experts": Experts(7, 40, 3, normalised=False),
        "sparse": (True, False, True),
        "residual_scale": 0.5,
    },
}


def loaded(
    backend: AttentionBackend,
    dtype: torch.dtype,
    form: LinearFormat = PLAIN,
    **fields: object,
) -> Decoder:
    sizes = {
        "vocab_size": 97,
        "hidden_size": 64,
        "mlp_size": 72,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 32,
        "norm_eps": 1e-6,
        "act": "silu",
        "max_positions": 256,
        "rope": Rope(),
        "windows": (0, 0, 0),
        "rotary": (True, True, True),
        "tied": False,
    }
    plan = DecoderPlan(**(sizes | fields))  # type: ignore[arg-type]
    model = plan.build(dtype, CPU, backend, form)
    generator = torch.Generator().manual_seed(0)
    for name, target in model.targets().items():
        noise = torch.randn(target.shape, generator=generator)
        target.load(1 + 0.2 * noise if "norm" in name else 0.15 * noise)
    return model


def steps(model: CausalLM, backend: AttentionBackend, dtype: torch.dtype) -> list[Tensor]:
    """Logits of two sequences over three steps: prompts, a chunk beside a decode, two decodes."""
    torch.manual_seed(1)
    layers = sum(len(group.layers) for group in model.kv_groups)
    shape = (BLOCKS, BLOCK, model.num_kv_heads, model.head_dim)
    caches = [backend.allocate(*shape, dtype, CPU) for _ in range(layers)]
    tables = torch.randperm(BLOCKS).int().view(2, -1)
    found = []
    for spans in (((0, 30), (0, 70)), ((30, 31), (70, 110)), ((31, 32), (110, 111))):
        at = [torch.arange(start, end) for start, end in spans]
        slots = [
            table[a // BLOCK].long() * BLOCK + a % BLOCK
            for table, a in zip(tables, at, strict=True)
        ]
        counts, lens = [len(a) for a in at], [end for _, end in spans]
        starts = torch.tensor([0, *counts]).cumsum(0).int()
        group = GroupTables(tables, torch.cat(slots))
        groups = tuple(GroupTables(tables, group.slot_mapping) for _ in model.kv_groups)
        batch = AttnBatch(starts, torch.tensor(lens).int(), groups, counts, lens)
        ids = torch.randint(0, 97, (sum(counts),))
        with torch.inference_mode():
            hidden = model.forward(ids, torch.cat(at), caches, batch)
            found.append(model.logits(hidden).clone())
    return found


def native_of(model: Decoder, threads: int = 2) -> NativeDecoder:
    return NativeDecoder(model, max_tokens=128, max_rows=128, max_len=256, threads=threads)


@pytest.mark.parametrize("name", PLANS)
def test_equals_the_torch_decoder(name: str) -> None:
    reference, backend = TorchReference(), CpuAttention(1)
    model = loaded(reference, torch.float32, **PLANS[name])
    expected = steps(model, reference, torch.float32)
    found = steps(native_of(model), backend, torch.float32)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", [Int8(), Int4()], ids=lambda form: form.name)
@pytest.mark.parametrize("tied", [True, False])
def test_integer_formats_stay_close_to_their_twins(form: LinearFormat, tied: bool) -> None:
    """Close, not equal: a norm's last bit may turn a rounding of the activations."""
    reference, backend = TorchReference(), CpuAttention(1)
    fields = {"tied": tied, "qkv_bias": True, "mlp_bias": True}
    model = loaded(reference, torch.float32, form, **fields)
    expected = steps(model, reference, torch.float32)
    found = steps(native_of(model), backend, torch.float32)
    exact = steps(loaded(reference, torch.float32, **fields), reference, torch.float32)
    for one, other, true in zip(found, expected, exact, strict=True):
        assert (one - other).norm() < 0.01 * other.norm()
        assert (one - true).norm() > 2 * (one - other).norm()


def test_bfloat16_stays_close() -> None:
    reference, backend = TorchReference(), CpuAttention(1)
    model = loaded(reference, torch.bfloat16, qk_norm=True)
    exact = steps(loaded(reference, torch.float32, qk_norm=True), reference, torch.float32)
    found = steps(native_of(model), backend, torch.bfloat16)
    for one, other in zip(found, exact, strict=True):
        assert (one - other).norm() < 0.02 * other.norm()


@pytest.mark.parametrize("form", [PLAIN, Int8(), Int4()], ids=lambda form: form.name)
@pytest.mark.parametrize("name", ["qk-norm", "gemma", "post-norm", "experts"])
def test_threads_and_company_change_no_bit(form: LinearFormat, name: str) -> None:
    """Also for the logits of more rows than a program keeps."""
    backend = CpuAttention(1)
    model = loaded(backend, torch.bfloat16, form, **PLANS[name])
    twin = loaded(backend, torch.bfloat16, form, **PLANS[name])
    alone = NativeDecoder(twin, max_tokens=128, max_rows=3, max_len=256, threads=1)
    pairs = zip(
        steps(native_of(model, 3), backend, torch.bfloat16),
        steps(alone, backend, torch.bfloat16),
        strict=True,
    )
    assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("form", [PLAIN, Int8()], ids=lambda form: form.name)
def test_a_tied_table_is_held_once(form: LinearFormat) -> None:
    """The plain table is given up, and embedding and head read the same bytes."""
    model = loaded(CpuAttention(1), torch.bfloat16, form, tied=True)
    assert model.embed is not None
    plain = weakref.ref(model.embed.table)
    native = native_of(model)
    assert plain() is None
    assert native._table is not None
    assert native._head._kept[0] is native._table


@pytest.mark.parametrize("form", [PLAIN, Int8(), Int4()], ids=lambda form: form.name)
@pytest.mark.parametrize("name", ["gemma", "post-norm", "experts", "shares-of-all"])
def test_a_token_does_not_see_who_computes_beside_it(form: LinearFormat, name: str) -> None:
    """Bit for bit, whichever experts the others go to: one sequence whole, and token by token."""
    backend = CpuAttention(1)
    model = native_of(loaded(backend, torch.bfloat16, form, **PLANS[name]))
    ids = torch.randint(0, 97, (40,), generator=torch.Generator().manual_seed(3))
    whole = feed(model, backend, [ids])
    assert torch.equal(feed(model, backend, [ids[:1], ids[1:7], *ids[7:].split(1)]), whole)


def feed(model: CausalLM, backend: AttentionBackend, chunks: list[Tensor]) -> Tensor:
    """Logits of one new sequence."""
    layers = sum(len(group.layers) for group in model.kv_groups)
    shape = (BLOCKS, BLOCK, model.num_kv_heads, model.head_dim)
    caches = [backend.allocate(*shape, torch.bfloat16, CPU) for _ in range(layers)]
    table = torch.arange(BLOCKS, dtype=torch.int32)[None]
    found, length = [], 0
    for ids in chunks:
        at = torch.arange(length, length + len(ids))
        length += len(ids)
        groups = tuple(GroupTables(table, at) for _ in model.kv_groups)
        lens = torch.tensor([length], dtype=torch.int32)
        starts = torch.tensor([0, len(ids)], dtype=torch.int32)
        batch = AttnBatch(starts, lens, groups, [len(ids)], [length])
        with torch.inference_mode():
            found.append(model.logits(model.forward(ids, at, caches, batch)).clone())
    return torch.cat(found)


class Recorded:
    """A Store that takes everything in, then gives it out again."""

    def __init__(self) -> None:
        self.kept: list[PackedWeight | Tensor] = []
        self.replays = False

    def _next(self, make: Callable[[], PackedWeight | Tensor]) -> PackedWeight | Tensor:
        if self.replays:
            return self.kept.pop(0)
        self.kept.append(made := make())
        return made

    def matrix(self, make: Callable[[], PackedWeight], looked_up: bool = False) -> PackedWeight:
        found = self._next(make)
        assert isinstance(found, PackedWeight)
        return found

    def tensor(self, make: Callable[[], Tensor]) -> Tensor:
        found = self._next(make)
        assert isinstance(found, Tensor)
        return found

    def finish(self) -> None:
        assert self.kept if not self.replays else not self.kept
        self.replays = True


@pytest.mark.parametrize("name", PLANS)
def test_the_store_holds_all_that_a_model_needs(name: str) -> None:
    """A second start loads nothing: what the store lacks would be whatever lies in memory."""
    backend, store = CpuAttention(1), Recorded()
    expected = None
    for _ in range(2):
        model = loaded(backend, torch.bfloat16, **PLANS[name])
        if store.replays:
            for target in model.targets().values():
                target.load(torch.full(target.shape, torch.nan))
        native = NativeDecoder(model, 128, 128, 256, 1, store)
        found = steps(native, backend, torch.bfloat16)
        expected = expected or found
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
