"""What the config.json files of the Llama-like families have in common."""

from __future__ import annotations

from penstock.errors import CheckpointError, UnsupportedError
from penstock.layers.decoder import DecoderPlan
from penstock.layers.mlp import ACTIVATIONS
from penstock.layers.rotary import Rope
from penstock.models.config_json import ConfigJson
from penstock.models.rope import read_rope

FULL, SLIDING = "full_attention", "sliding_attention"


def read_decoder(
    config: ConfigJson,
    *,
    windows: tuple[int, ...],
    rotary: tuple[bool, ...] | None = None,
    qkv_bias: bool = False,
    out_bias: bool = False,
    mlp_bias: bool = False,
    qk_norm: bool = False,
    tied: bool = False,
    theta: float = 10000.0,
    head_dim: int | None = None,
    norm_eps: float = 1e-6,
    partial_rotary: bool = False,
    rope: tuple[Rope, int] | None = None,
) -> DecoderPlan:
    """The plan of a Llama-like model; the arguments are what the family adds or assumes. A family
    that differs further reads its own fields first and replaces them in the plan.

    `tied`, `theta`, `head_dim` and `norm_eps` are the family's defaults for fields that the file
    leaves out; rope: what `read_rope` gives, where the family reads it by itself. Raises
    CheckpointError and UnsupportedError.
    """
    heads, kv_heads, dim = _heads(config, head_dim)
    if rope is None:
        positions = config.size("max_position_embeddings")
        rope = read_rope(config, positions, theta, partial_rotary)
    rotated = rope[0].size(dim)
    if rotated % 2 or (rope[0].factors and len(rope[0].factors) != rotated // 2):
        raise CheckpointError(
            f"{config.where}: the rotation does not fit heads of {dim}.", param="rope_scaling"
        )
    plan = DecoderPlan(
        vocab_size=config.size("vocab_size"),
        hidden_size=config.size("hidden_size"),
        mlp_size=config.size("intermediate_size"),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=dim,
        norm_eps=config.number("rms_norm_eps", norm_eps),
        act=read_act(config, "hidden_act", "silu"),
        max_positions=rope[1],
        rope=rope[0],
        windows=windows,
        rotary=rotary or (True,) * len(windows),
        tied=config.flag("tie_word_embeddings", tied),
        qkv_bias=qkv_bias,
        out_bias=out_bias,
        mlp_bias=mlp_bias,
        qk_norm=qk_norm,
    )
    config.finish()
    return plan


def _heads(config: ConfigJson, head_dim: int | None) -> tuple[int, int, int]:
    """Attention heads, KV heads, and the size of a head."""
    heads = config.size("num_attention_heads")
    kv_heads = config.size("num_key_value_heads", heads)
    if heads % kv_heads:
        raise CheckpointError(
            f"{config.where}: {heads} attention heads cannot share {kv_heads} KV heads evenly."
        )
    dim = config.size("head_dim", head_dim or config.size("hidden_size") // heads or 1)
    if dim % 2:
        raise UnsupportedError(f"{config.where}: head_dim must be even, not {dim}.")
    return heads, kv_heads, dim


def read_act(config: ConfigJson, name: str, default: str) -> str:
    """The activation in field `name`. Raises UnsupportedError."""
    act = config.take(name, str, default)
    if act not in ACTIVATIONS:
        raise UnsupportedError(
            f"{config.where}: {name} {act!r} is not supported.",
            cure=f"Known: {', '.join(sorted(ACTIVATIONS))}.",
            param=name,
        )
    return act


def optional(config: ConfigJson, name: str, default: float) -> float:
    """A number that null switches off (0); the default where the field is missing."""
    return config.number(name, 0.0 if name in config.raw else default)


def uniform_windows(config: ConfigJson, window: int) -> tuple[int, ...]:
    """The same window in every layer; `layer_types`, where present, must agree."""
    expected = SLIDING if window else FULL
    types = config.take("layer_types", list, [])
    if any(kind != expected for kind in types):
        raise UnsupportedError(
            f"{config.where}: this architecture has {expected} in every layer, but layer_types "
            f"says {types!r}.",
            param="layer_types",
        )
    return (window,) * config.size("num_hidden_layers")


def sliding_width(config: ConfigJson, default: int) -> int:
    """Tokens of the window where `use_sliding_window` asks for one, else 0; `default` is the
    family's width where the file has none (a null means no window)."""
    width = config.take("sliding_window", int, 0 if "sliding_window" in config.raw else default)
    return width if config.flag("use_sliding_window", False) else 0


def layered_windows(config: ConfigJson, width: int, default_types: list[str]) -> tuple[int, ...]:
    """Windows of Qwen's and SmolLM3's files: by `layer_types`, or by the family's rule when the
    file has none."""
    layers = config.size("num_hidden_layers")
    types = config.take("layer_types", list, default_types)
    if len(types) != layers or any(kind not in (FULL, SLIDING) for kind in types):
        raise UnsupportedError(
            f"{config.where}: layer_types must name {FULL} or {SLIDING} for each of {layers} "
            f"layers, not {types!r}.",
            param="layer_types",
        )
    if SLIDING in types and not width:
        raise CheckpointError(
            f"{config.where} contradicts itself: layer_types has {SLIDING}, but use_sliding_window "
            "and sliding_window give no window.",
            param="layer_types",
        )
    return tuple(width if kind == SLIDING else 0 for kind in types)


def qwen_windows(config: ConfigJson) -> tuple[int, ...]:
    """Qwen's rule: with use_sliding_window, the layers from max_window_layers on have a window."""
    width = sliding_width(config, 4096)
    from_layer = config.take("max_window_layers", int, 28)
    layers = range(config.size("num_hidden_layers"))
    return layered_windows(
        config, width, [SLIDING if width and i >= from_layer else FULL for i in layers]
    )


def check_experts(config: ConfigJson, count: int, top_k: int) -> None:
    """Raise CheckpointError where a token would get more experts than there are; read what
    concerns only training."""
    for name in ("router_aux_loss_coef", "router_jitter_noise"):
        config.number(name, 0.0)
    config.flag("output_router_logits", False)
    if top_k > count:
        raise CheckpointError(
            f"{config.where}: a token cannot have {top_k} of {count} experts.",
            param="num_experts_per_tok",
        )
