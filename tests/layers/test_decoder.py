"""What the plan alone decides; the arithmetic is tested against transformers in tests/models."""

from __future__ import annotations

import torch

from penstock.attention.torch_reference import TorchReference
from penstock.core.plan import KVGroup
from penstock.layers.decoder import Decoder, DecoderPlan
from penstock.layers.rotary import Rope


def plan(**fields: object) -> DecoderPlan:
    sizes = {
        "vocab_size": 11,
        "hidden_size": 8,
        "mlp_size": 12,
        "num_heads": 2,
        "num_kv_heads": 1,
        "head_dim": 4,
        "norm_eps": 1e-6,
        "act": "silu",
        "max_positions": 32,
        "rope": Rope(),
        "windows": (0, 0),
        "rotary": (True, True),
        "tied": True,
    }
    return DecoderPlan(**(sizes | fields))  # type: ignore[arg-type]


def build(made: DecoderPlan) -> Decoder:
    return made.build(torch.float32, torch.device("cpu"), TorchReference())


def test_groups_are_by_window_full_attention_first() -> None:
    assert plan(windows=(8, 0, 8, 4)).kv_groups == (
        KVGroup((1,), 0),
        KVGroup((3,), 4),
        KVGroup((0, 2), 8),
    )
    assert plan().kv_groups == (KVGroup((0, 1), 0),)


def test_asks_for_exactly_the_tensors_of_the_architecture() -> None:
    bare, full = build(plan()), build(plan(tied=False, qkv_bias=True, out_bias=True, qk_norm=True))
    layer = {
        "input_layernorm", "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj",
        "mlp.down_proj", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
        "self_attn.o_proj",
    }  # fmt: skip
    expected = {f"model.layers.{i}.{name}.weight" for i in range(2) for name in layer}
    assert set(bare.targets()) == expected | {"model.embed_tokens.weight", "model.norm.weight"}
    more = {f"{p}_proj.bias" for p in "qkvo"} | {f"{p}_norm.weight" for p in "qk"}
    assert set(full.targets()) - set(bare.targets()) == {"lm_head.weight"} | {
        f"model.layers.{i}.self_attn.{name}" for i in range(2) for name in more
    }


def test_a_tied_model_has_one_table() -> None:
    model = build(plan())
    table = torch.randn(11, 8)
    model.targets()["model.embed_tokens.weight"].load(table)
    hidden = torch.randn(3, 8)
    torch.testing.assert_close(model.logits(hidden), hidden @ table.T)


def test_spare_tensors() -> None:
    tied, untied = build(plan()), build(plan(tied=False))
    assert tied.spare("lm_head.weight")
    assert not untied.spare("lm_head.weight")
    assert untied.spare("model.layers.0.self_attn.rotary_emb.inv_freq")
    assert not untied.spare("model.layers.2.input_layernorm.weight")
