"""The pre-norm decoder that Llama, Mistral, Qwen2, Qwen3 and SmolLM3 share, as one plan.

`DecoderPlan` says everything in which these families differ; a file in `models` reads it from
config.json. A family that does not fit writes its own modules instead of adding a flag here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from penstock.attention.base import AttentionBackend, AttnBatch
from penstock.core.plan import KVGroup
from penstock.layers.attention import Attention, AttentionShape
from penstock.layers.embedding import Embedding
from penstock.layers.mlp import GatedMLP
from penstock.layers.norm import RMSNorm
from penstock.layers.rotary import Rope, Rotary, Rotation
from penstock.layers.targets import Targets
from penstock.quant.base import LinearFormat
from penstock.quant.plain import PLAIN


@dataclass(frozen=True, slots=True)
class DecoderPlan:
    """Sizes in elements; `windows` (0 = full attention) and `rotary` have one entry a layer."""

    vocab_size: int
    hidden_size: int
    mlp_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    norm_eps: float
    act: str
    max_positions: int
    rope: Rope
    windows: tuple[int, ...]
    rotary: tuple[bool, ...]
    tied: bool
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False

    @property
    def kv_groups(self) -> tuple[KVGroup, ...]:
        """Layers by window, full attention first."""
        return tuple(
            KVGroup(tuple(i for i, w in enumerate(self.windows) if w == window), window)
            for window in sorted(set(self.windows))
        )

    def build(
        self,
        dtype: torch.dtype,
        device: torch.device,
        backend: AttentionBackend,
        format: LinearFormat = PLAIN,
    ) -> Decoder:
        """The model with uninitialised weights."""
        return Decoder(self, dtype, device, backend, format)


class Decoder:
    """A CausalLM (see models/base.py). Call it under `torch.inference_mode()`."""

    def __init__(
        self,
        plan: DecoderPlan,
        dtype: torch.dtype,
        device: torch.device,
        backend: AttentionBackend,
        format: LinearFormat,
    ) -> None:
        self.plan = plan
        self.dtype = dtype
        self.kv_groups = plan.kv_groups
        self.num_kv_heads = plan.num_kv_heads
        self.head_dim = plan.head_dim
        self.vocab_size = plan.vocab_size
        self.max_positions = plan.max_positions
        group_of = {layer: g for g, group in enumerate(self.kv_groups) for layer in group.layers}
        self.embed = Embedding(plan.vocab_size, plan.hidden_size, dtype, device, format)
        self.rotary = Rotary(plan.rope, plan.head_dim, dtype, device)
        self.layers = [
            Layer(plan, i, group_of[i], dtype, device, backend, format)
            for i in range(len(plan.windows))
        ]
        self.norm = RMSNorm(plan.hidden_size, plan.norm_eps, dtype, device)
        self.head = (
            self.embed
            if plan.tied
            else Embedding(plan.vocab_size, plan.hidden_size, dtype, device, format)
        )

    def forward(
        self, ids: Tensor, positions: Tensor, caches: list[Tensor], batch: AttnBatch
    ) -> Tensor:
        """See CausalLM.forward."""
        x = self.embed(ids)
        rotation = self.rotary(positions)
        for layer, cache in zip(self.layers, caches, strict=True):
            layer(x, rotation, cache, batch)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """See CausalLM.logits."""
        return self.head.logits(hidden)

    def targets(self) -> Targets:
        """See CausalLM.targets."""
        found = self.embed.targets("model.embed_tokens") | self.norm.targets("model.norm")
        for i, layer in enumerate(self.layers):
            found |= layer.targets(f"model.layers.{i}")
        if not self.plan.tied:
            found |= self.head.targets("lm_head")
        return found

    def spare(self, name: str) -> bool:
        """See CausalLM.spare: the tied head, and the frequencies that old exports carry along."""
        return (self.plan.tied and name == "lm_head.weight") or name.endswith("rotary_emb.inv_freq")


class Layer:
    """One layer: attention and MLP on a residual stream."""

    def __init__(
        self,
        plan: DecoderPlan,
        index: int,
        group: int,
        dtype: torch.dtype,
        device: torch.device,
        backend: AttentionBackend,
        format: LinearFormat,
    ) -> None:
        shape = AttentionShape(
            hidden_size=plan.hidden_size,
            num_heads=plan.num_heads,
            num_kv_heads=plan.num_kv_heads,
            head_dim=plan.head_dim,
            qkv_bias=plan.qkv_bias,
            out_bias=plan.out_bias,
            norm_eps=plan.norm_eps if plan.qk_norm else None,
            rotary=plan.rotary[index],
            window=plan.windows[index],
            group=group,
        )
        self.norm_in = RMSNorm(plan.hidden_size, plan.norm_eps, dtype, device)
        self.attention = Attention(shape, backend, dtype, device, format)
        self.norm_mid = RMSNorm(plan.hidden_size, plan.norm_eps, dtype, device)
        self.mlp = GatedMLP(
            plan.hidden_size, plan.mlp_size, plan.act, plan.mlp_bias, dtype, device, format
        )

    def __call__(self, x: Tensor, rotation: Rotation, cache: Tensor, batch: AttnBatch) -> None:
        """Add this layer's work to the residual stream x [tokens, hidden_size], in place."""
        x += self.attention(self.norm_in(x), rotation, cache, batch)
        x += self.mlp(self.norm_mid(x))

    def targets(self, prefix: str) -> Targets:
        return (
            self.norm_in.targets(f"{prefix}.input_layernorm")
            | self.attention.targets(f"{prefix}.self_attn")
            | self.norm_mid.targets(f"{prefix}.post_attention_layernorm")
            | self.mlp.targets(f"{prefix}.mlp")
        )
