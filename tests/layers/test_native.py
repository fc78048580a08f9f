"""A recorded decoder answers as the torch decoder does, whatever its plan."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from penstock.attention.base import AttentionBackend, AttnBatch, GroupTables
from penstock.attention.cpu import CpuAttention
from penstock.attention.torch_reference import TorchReference
from penstock.errors import UnsupportedError
from penstock.kernels import cpu
from penstock.kernels.cpu.pack import pack_float
from penstock.layers.decoder import Decoder, DecoderPlan
from penstock.layers.native import NativeDecoder
from penstock.layers.rotary import Rope
from penstock.models.base import CausalLM

pytestmark = pytest.mark.skipif(cpu.available() is not None, reason=str(cpu.available()))

CPU = torch.device("cpu")
BLOCK, BLOCKS = 16, 40
PLANS: dict[str, dict[str, object]] = {
    "plain": {},
    "tied": {"tied": True},
    "biases": {"qkv_bias": True, "out_bias": True, "mlp_bias": True},
    "qk-norm": {"qk_norm": True},
    "windows": {"windows": (0, 20, 0), "rotary": (True, True, False)},
    "yarn": {"rope": Rope(kind="yarn", factor=4.0, original_max=64, attention_factor=1.1)},
}


def loaded(backend: AttentionBackend, dtype: torch.dtype, **fields: object) -> Decoder:
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
    model = plan.build(dtype, CPU, backend)
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


@pytest.mark.parametrize("name", PLANS)
def test_equals_the_torch_decoder(name: str) -> None:
    reference, backend = TorchReference(), CpuAttention(1)
    model = loaded(reference, torch.float32, **PLANS[name])
    expected = steps(model, reference, torch.float32)
    native = NativeDecoder(model, pack_float, 256, threads=2)
    found = steps(native, backend, torch.float32)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_bfloat16_stays_close() -> None:
    reference, backend = TorchReference(), CpuAttention(1)
    model = loaded(reference, torch.bfloat16, qk_norm=True)
    exact = steps(loaded(reference, torch.float32, qk_norm=True), reference, torch.float32)
    native = NativeDecoder(model, pack_float, 256, threads=2)
    found = steps(native, backend, torch.bfloat16)
    for one, other in zip(found, exact, strict=True):
        assert (one - other).norm() < 0.02 * other.norm()


def test_bytes_of_a_step_are_those_of_the_packed_weights() -> None:
    native = NativeDecoder(loaded(CpuAttention(1), torch.bfloat16), pack_float, 256, threads=1)
    weights = 3 * (64 * (128 + 128) + 128 * 64 + 64 * 2 * 80 + 96 * 64) + 128 * 64
    assert native.weight_bytes == 2 * weights


def test_another_activation_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="gelu"):
        NativeDecoder(loaded(CpuAttention(1), torch.float32, act="gelu"), pack_float, 256)
