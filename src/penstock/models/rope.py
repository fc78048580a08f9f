"""The rotary part of config.json, as published (`rope_theta`, `rope_scaling`) and as transformers 5
writes it (`rope_parameters`)."""

from __future__ import annotations

import math
from typing import Any

from penstock.errors import CheckpointError, UnsupportedError
from penstock.layers.rotary import Rope, yarn_attention_factor
from penstock.models.config_json import ConfigJson

FIELDS: dict[str, frozenset[str]] = {
    "default": frozenset({"factor"}),
    "linear": frozenset({"factor"}),
    "dynamic": frozenset({"factor"}),
    "llama3": frozenset(
        {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}
    ),
    "longrope": frozenset(
        {
            "factor",
            "original_max_position_embeddings",
            "attention_factor",
            "short_factor",
            "long_factor",
        }
    ),
    "yarn": frozenset(
        {
            "factor",
            "original_max_position_embeddings",
            "attention_factor",
            "beta_fast",
            "beta_slow",
            "mscale",
            "mscale_all_dim",
            "truncate",
        }
    ),
}
"""rope type -> the fields that it may have beside `rope_theta` and its own name"""
ALIASES = {"su": "longrope"}


def read_rope(
    config: ConfigJson, max_positions: int, default_theta: float, partial: bool = False
) -> tuple[Rope, int]:
    """The rotation, and the tokens of the context that it reaches.

    linear and yarn reach factor times the original context even where max_position_embeddings
    still states the original. partial: the family may rotate a part of each head. Raises
    UnsupportedError for a rope type or field that is unknown.
    """
    empty: dict[str, Any] = {}
    published = config.take("rope_scaling", dict, empty)
    current = config.take("rope_parameters", dict, empty)
    top_theta = config.number("rope_theta", default_theta)
    part = config.number("partial_rotary_factor", 1.0)
    fields = ConfigJson(published or current, f"{config.where}: rope parameters")
    theta = fields.number("rope_theta", top_theta)
    part = fields.number("partial_rotary_factor", part)
    kind = fields.take("rope_type", str, fields.take("type", str, "default"))
    kind = ALIASES.get(kind, kind)
    if kind not in FIELDS:
        raise UnsupportedError(
            f"{config.where}: the rope type {kind!r} is not supported.",
            cure=f"Known: {', '.join(sorted(FIELDS))}.",
            param="rope_scaling",
        )
    if not (0 < part <= 1 if partial else part == 1):
        raise UnsupportedError(
            f"{config.where}: rotating {part} of each head (partial_rotary_factor) is not "
            "supported for this architecture.",
            param="partial_rotary_factor",
        )
    rope = _read_kind(fields, kind, theta, part, config, max_positions)
    if rope.factor < 1 or rope.theta <= 1 or rope.low_freq_factor >= rope.high_freq_factor:
        raise CheckpointError(
            f"{fields.where} make no sense: {fields.raw!r}.", param="rope_scaling"
        )
    fields.finish(FIELDS[kind])
    if kind == "linear":
        max_positions = int(max_positions * rope.factor)
    elif kind == "yarn":
        max_positions = max(max_positions, int(rope.original_max * rope.factor))
    return rope, max_positions


def _read_kind(
    fields: ConfigJson,
    kind: str,
    theta: float,
    partial: float,
    config: ConfigJson,
    max_positions: int,
) -> Rope:
    if kind == "linear":
        return Rope(theta, kind, factor=fields.number("factor"), partial=partial)
    if kind not in ("llama3", "longrope", "yarn"):
        return Rope(theta, kind, partial=partial)
    original = config.size(
        "original_max_position_embeddings",
        fields.size("original_max_position_embeddings", max_positions),
    )
    if kind == "llama3":
        return Rope(
            theta,
            kind,
            factor=fields.number("factor"),
            original_max=original,
            low_freq_factor=fields.number("low_freq_factor"),
            high_freq_factor=fields.number("high_freq_factor"),
            partial=partial,
        )
    factor = fields.number("factor", max_positions / original)
    if kind == "longrope":
        default = 1.0
        if factor > 1 and original > 1:
            default = math.sqrt(1 + math.log(factor) / math.log(original))
        return Rope(
            theta,
            kind,
            factor=factor,
            original_max=original,
            attention_factor=fields.number("attention_factor", default),
            factors=_long_or_short(fields, (config.longest or max_positions) > original),
            partial=partial,
        )
    mscales = fields.number("mscale", 0.0), fields.number("mscale_all_dim", 0.0)
    return Rope(
        theta,
        kind,
        factor=factor,
        original_max=original,
        beta_fast=fields.number("beta_fast", 32.0),
        beta_slow=fields.number("beta_slow", 1.0),
        truncate=fields.flag("truncate", True),
        attention_factor=fields.number("attention_factor", yarn_attention_factor(factor, *mscales)),
        partial=partial,
    )


def _long_or_short(fields: ConfigJson, long: bool) -> tuple[float, ...]:
    """longrope's factors for the longest request that the model may get."""
    sets = []
    for name in ("short_factor", "long_factor"):
        found = fields.take(name, list)
        if not found or not all(isinstance(f, int | float) and f > 0 for f in found):
            raise CheckpointError(
                f"{fields.where}: {name} must be numbers above 0.", param="rope_scaling"
            )
        sets.append(tuple(float(f) for f in found))
    return sets[long]
