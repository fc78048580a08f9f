"""The decoder that the Llama-like families share, as one plan.

`DecoderPlan` says everything in which these families differ; a file in `models` reads it from
config.json, and `native` makes a program of CPU kernels from it. A family that needs modules of
its own writes them instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from penstock.attention.base import AttentionBackend, AttnBatch
from penstock.core.plan import KVGroup
from penstock.layers.attention import Attention, AttentionShape
from penstock.layers.embedding import Embedding
from penstock.layers.linear import Linear
from penstock.layers.lora import Weights
from penstock.layers.mlp import GatedMLP
from penstock.layers.moe import Experts, MoE
from penstock.layers.norm import RMSNorm
from penstock.layers.rotary import Rope, Rotary, Rotation
from penstock.layers.targets import Targets
from penstock.parallel.ranks import ALONE, RankGroup
from penstock.quant.base import LinearFormat
from penstock.quant.plain import PLAIN

EMBEDDING = "model.embed_tokens"
NORM_NAMES = {
    "pre": ("input_layernorm", "", "post_attention_layernorm", ""),
    "post": ("", "post_attention_layernorm", "", "post_feedforward_layernorm"),
    "both": (
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    ),
}
"""Where norms stand -> the names of those before and after attention, before and after the MLP"""


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
    whole_qk_norm: bool = False
    """QK-norm goes over all heads at once"""
    norms: Literal["pre", "post", "both"] = "pre"
    """of a layer's two halves: what enters is normalised, what leaves, or both"""
    norm_offset: float = 0.0
    """see RMSNorm"""
    local_rope: Rope | None = None
    """of layers with a window, where it is another"""
    attention_scale: float | None = None
    """of attention scores; None: head_dim ** -0.5"""
    attention_softcap: float = 0.0
    """see AttentionBackend.attend"""
    embed_scale: float = 1.0
    residual_scale: float = 1.0
    """of what a layer adds to the residual stream"""
    logit_scale: float = 1.0
    logit_softcap: float = 0.0
    """c > 0: logits are c * tanh(logit / c)"""
    joined: bool = False
    """the checkpoint has qkv_proj and gate_up_proj, one tensor each"""
    experts: Experts | None = None
    sparse: tuple[bool, ...] = ()
    """which layers have experts in place of one MLP; none where empty"""

    @property
    def kv_groups(self) -> tuple[KVGroup, ...]:
        """Layers by window, full attention first."""
        return tuple(
            KVGroup(tuple(i for i, w in enumerate(self.windows) if w == window), window)
            for window in sorted(set(self.windows))
        )

    @property
    def costs(self) -> tuple[list[int], int]:
        """Weights that a token is multiplied with: of each layer, and of the head."""
        heads = 2 * (self.num_heads + self.num_kv_heads) * self.head_dim
        inner = [self.mlp_size] * len(self.windows)
        if self.experts is not None:
            active = self.experts.top_k * self.experts.size
            inner = [active if i else self.mlp_size for i in self.sparse]
        layers = [self.hidden_size * (heads + 3 * size) for size in inner]
        return layers, self.hidden_size * self.vocab_size

    @property
    def adaptable(self) -> dict[str, tuple[int, int]]:
        """Matrices of a layer that an adapter may add to: name -> (outputs, inputs)."""
        hidden, inner = self.hidden_size, self.mlp_size
        q, kv = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        found = {"q_proj": (q, hidden), "k_proj": (kv, hidden), "v_proj": (kv, hidden)}
        if self.joined:
            found = {"qkv_proj": (q + 2 * kv, hidden)}
        found["o_proj"] = (hidden, q)
        if self.experts is not None:
            return found
        gates = {"gate_proj": (inner, hidden), "up_proj": (inner, hidden)}
        if self.joined:
            gates = {"gate_up_proj": (2 * inner, hidden)}
        return found | gates | {"down_proj": (hidden, inner)}

    def build(
        self,
        dtype: torch.dtype,
        device: torch.device,
        backend: AttentionBackend,
        format: LinearFormat = PLAIN,
        ranks: RankGroup = ALONE,
    ) -> Decoder:
        """The model, or this rank's part of its stage, with uninitialised weights. Raises
        UnsupportedError where it cannot be split."""
        return Decoder(self, dtype, device, backend, format, ranks)


class Decoder:
    """A CausalLM (see models/base.py). Call it under `torch.inference_mode()`."""

    def __init__(
        self,
        plan: DecoderPlan,
        dtype: torch.dtype,
        device: torch.device,
        backend: AttentionBackend,
        format: LinearFormat,
        ranks: RankGroup = ALONE,
    ) -> None:
        self.plan = plan
        self.ranks = ranks
        self.own = own = ranks.stage.layers(*plan.costs)
        self.kv_groups = tuple(
            KVGroup(tuple(own.index(i) for i in group.layers if i in own), group.window)
            for group in plan.kv_groups
        )
        self.hidden_size = plan.hidden_size
        self.dtype = dtype
        self.num_kv_heads = ranks.split_heads(plan.num_heads, plan.num_kv_heads)[1].count
        self.head_dim = plan.head_dim
        self.vocab_size = plan.vocab_size
        self.max_positions = plan.max_positions
        group_of = {layer: g for g, group in enumerate(plan.kv_groups) for layer in group.layers}
        table = (plan.vocab_size, plan.hidden_size, dtype, device, format, ranks)
        self.embed = Embedding(*table, scale=plan.embed_scale) if ranks.stage.first else None
        self.rotary = self.local_rotary = Rotary(plan.rope, plan.head_dim, dtype, device)
        if plan.local_rope is not None:
            self.local_rotary = Rotary(plan.local_rope, plan.head_dim, dtype, device)
        self.layers = [
            Layer(plan, i, group_of[i], dtype, device, backend, format, ranks) for i in own
        ]
        self.norm: RMSNorm | None = None
        self.head: Embedding | None = None
        if ranks.stage.last:
            self.norm = RMSNorm(plan.hidden_size, plan.norm_eps, dtype, device, plan.norm_offset)
            shared = self.embed if plan.tied else None
            self.head = shared or Embedding(*table)

    def forward(
        self, x: Tensor, positions: Tensor, caches: list[Tensor], batch: AttnBatch
    ) -> Tensor:
        """See CausalLM.forward."""
        if self.embed is not None:
            x = self.embed(x)
        rotation = local = self.rotary(positions)
        if self.local_rotary is not self.rotary:
            local = self.local_rotary(positions)
        for layer, cache in zip(self.layers, caches, strict=True):
            layer(x, local if layer.window else rotation, cache, batch)
        return x if self.norm is None else self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """See CausalLM.logits. On the last stage only."""
        assert self.head is not None
        logits = self.head.logits(hidden)
        scale, cap = self.plan.logit_scale, self.plan.logit_softcap
        if scale != 1.0:
            logits *= scale
        return logits.div_(cap).tanh_().mul_(cap) if cap else logits

    def adapt(self, slots: int, rank: int) -> None:
        """Make room for `slots` adapters of a rank of at most `rank`."""
        for layer in self.layers:
            for name, linear in layer.linears.items():
                linear.adapt(slots, rank, {"qkv": "qkv_proj", "gate_up": "gate_up_proj"}.get(name))

    def set_adapter(self, slot: int, weights: Weights) -> None:
        """Put an adapter into a slot, in place of the one that is there."""
        for i, layer in zip(self.own, self.layers, strict=True):
            for linear in layer.linears.values():
                assert linear.additions is not None
                linear.additions.store(slot, weights.get(i, {}))

    def targets(self) -> Targets:
        """See LoadableLM.targets."""
        found: Targets = {}
        if self.embed is not None:
            found |= self.embed.targets(EMBEDDING)
        for i, layer in zip(self.own, self.layers, strict=True):
            found |= layer.targets(f"model.layers.{i}")
        if self.norm is not None:
            found |= self.norm.targets("model.norm")
        if self.head is not None:
            found |= self.head.targets(EMBEDDING if self.plan.tied else "lm_head")
        return found

    def spare(self, name: str) -> bool:
        """See LoadableLM.spare: the tied head, the frequencies that old exports carry along, and
        what the other stages have."""
        if (self.plan.tied and name == "lm_head.weight") or name.endswith("rotary_emb.inv_freq"):
            return True
        if name.startswith("model.layers."):
            layer = name.split(".")[2]
            known = layer.isdecimal() and int(layer) < len(self.plan.windows)
            return known and int(layer) not in self.own
        ends = (f"{EMBEDDING}.weight", "model.norm.weight", "lm_head.weight")
        return self.ranks.stage.count > 1 and name in ends


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
        ranks: RankGroup,
    ) -> None:
        shape = AttentionShape(
            hidden_size=plan.hidden_size,
            num_heads=plan.num_heads,
            num_kv_heads=plan.num_kv_heads,
            head_dim=plan.head_dim,
            qkv_bias=plan.qkv_bias,
            out_bias=plan.out_bias,
            norm_eps=plan.norm_eps if plan.qk_norm else None,
            norm_whole=plan.whole_qk_norm,
            norm_offset=plan.norm_offset,
            rotary=plan.rotary[index],
            window=plan.windows[index],
            scale=plan.attention_scale,
            softcap=plan.attention_softcap,
            group=group,
            joined="qkv_proj" if plan.joined else None,
        )
        self.window = shape.window
        self.attention = Attention(shape, backend, dtype, device, format, ranks)
        made = (dtype, device, format, ranks)
        size = plan.hidden_size
        self.mlp: GatedMLP | MoE
        if plan.experts is not None and plan.sparse[index]:
            self.mlp = MoE(size, plan.experts, plan.act, *made)
        else:
            self.mlp = GatedMLP(size, plan.mlp_size, plan.act, plan.mlp_bias, *made)
        norm = (size, plan.norm_eps, dtype, device, plan.norm_offset)
        self._norm_names = NORM_NAMES[plan.norms]
        norms = [RMSNorm(*norm) if name else None for name in self._norm_names]
        self.norm_in, self.norm_attention, self.norm_mid, self.norm_mlp = norms
        self._scale = plan.residual_scale
        self._joined = "gate_up_proj" if plan.joined else None

    def __call__(self, x: Tensor, rotation: Rotation, cache: Tensor, batch: AttnBatch) -> None:
        """Add this layer's work to the residual stream x [tokens, hidden_size], in place."""
        entering = x if self.norm_in is None else self.norm_in(x)
        self._add(x, self.attention(entering, rotation, cache, batch), self.norm_attention)
        entering = x if self.norm_mid is None else self.norm_mid(x)
        self._add(x, self.mlp(entering, batch.adapters), self.norm_mlp)

    @property
    def linears(self) -> dict[str, Linear]:
        """What adapters may add to; experts take none."""
        found = {"qkv": self.attention.qkv, "out": self.attention.out}
        if isinstance(self.mlp, GatedMLP):
            found |= {"gate_up": self.mlp.gate_up, "down": self.mlp.down}
        return found

    def _add(self, x: Tensor, y: Tensor, norm: RMSNorm | None) -> None:
        if norm is not None:
            y = norm(y)
        x += y if self._scale == 1.0 else y * self._scale

    def targets(self, prefix: str) -> Targets:
        found = self.attention.targets(f"{prefix}.self_attn")
        if isinstance(self.mlp, MoE):
            found |= self.mlp.targets(prefix)
        else:
            found |= self.mlp.targets(f"{prefix}.mlp", self._joined)
        norms = (self.norm_in, self.norm_attention, self.norm_mid, self.norm_mlp)
        for name, norm in zip(self._norm_names, norms, strict=True):
            if norm is not None:
                found |= norm.targets(f"{prefix}.{name}")
        return found
