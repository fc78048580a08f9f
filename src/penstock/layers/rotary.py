"""Rotary position embedding (RoPE, Su et al. 2021) and the ways to stretch it.

linear    positions divided by a factor (kaiokendev 2023)
llama3    low frequencies divided by a factor, a smooth step between (Llama 3.1)
yarn      interpolation by parts with a temperature (Peng et al. 2023)
longrope  a factor for each frequency, found by search (Ding et al. 2024). A file has two sets, for
          short and for long sequences; which one a model uses is a matter of the longest request
          that it may get (models/rope.py), so that no answer depends on the length of another.
dynamic   NTK-aware scaling that starts beyond the trained context. There the frequencies depend
          on the length of the sequence, while cached keys keep those of their own time: the answer
          would depend on chunking and on the cache. So a `dynamic` model serves its trained
          context, where it is plain RoPE; longer requests are refused by length.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Rope:
    """Parameters of the rotation; which ones count depends on `kind`."""

    theta: float = 10000.0
    kind: str = "default"
    factor: float = 1.0
    original_max: int = 0
    """tokens of the context before stretching (llama3, yarn)"""
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float = 1.0
    """multiplies cos and sin (yarn, longrope)"""
    factors: tuple[float, ...] = ()
    """by pair of dimensions (longrope)"""
    partial: float = 1.0
    """part of each head that is rotated: its first dimensions"""

    def size(self, head_dim: int) -> int:
        """Dimensions of a head that are rotated."""
        return int(head_dim * self.partial)


def inverse_frequencies(rope: Rope, head_dim: int) -> Tensor:
    """float32 [rotated dimensions / 2]: radians a position, by pair of dimensions."""
    head_dim = rope.size(head_dim)
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    frequencies = 1.0 / (rope.theta**exponents)
    if rope.kind == "linear":
        return frequencies / rope.factor
    if rope.kind == "longrope":
        return frequencies / torch.tensor(rope.factors)
    if rope.kind == "llama3":
        return _llama3(rope, frequencies)
    if rope.kind == "yarn":
        return _yarn(rope, frequencies, head_dim)
    return frequencies


def _llama3(rope: Rope, frequencies: Tensor) -> Tensor:
    waves = rope.original_max * frequencies / (2 * math.pi)  # turns within the original context
    smooth = (waves - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    smooth = smooth.clamp(0, 1)
    return (1 - smooth) * frequencies / rope.factor + smooth * frequencies


def _yarn(rope: Rope, frequencies: Tensor, head_dim: int) -> Tensor:
    def dimension(turns: float) -> float:
        """The pair that makes this many turns within the original context."""
        ratio = rope.original_max / (turns * 2 * math.pi)
        return head_dim * math.log(ratio) / (2 * math.log(rope.theta))

    low, high = dimension(rope.beta_fast), dimension(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    if low == high:
        high += 0.001  # the ramp would divide by zero
    ramp = (torch.arange(head_dim // 2, dtype=torch.float32) - low) / (high - low)
    ramp = ramp.clamp(0, 1)
    return frequencies / rope.factor * ramp + frequencies * (1 - ramp)


def yarn_attention_factor(factor: float, mscale: float = 0.0, mscale_all_dim: float = 0.0) -> float:
    """The temperature that the YaRN paper suggests, or the ratio that DeepSeek's files want."""

    def scale(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    if mscale and mscale_all_dim:
        return scale(mscale) / scale(mscale_all_dim)
    return scale(1.0)


@dataclass(frozen=True, slots=True)
class Rotation:
    """cos and sin of a step's positions, shared by layers: [tokens, 1, rotated dimensions].

    The halves of a head are the two coordinates: out = x * cos + swap(x) * sin, where swap
    exchanges the halves and `sin` carries the sign of the first half.
    """

    cos: Tensor
    sin: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """x [tokens, heads, head_dim] -> the rotated x, new memory."""
        size = self.cos.shape[-1]
        turned = x[..., :size]
        swapped = turned.roll(size // 2, -1)
        turned = torch.addcmul(turned * self.cos, swapped, self.sin)
        return turned if size == x.shape[-1] else torch.cat((turned, x[..., size:]), dim=-1)


class Rotary:
    """Makes a step's `Rotation`; computed in float32, then cast."""

    def __init__(self, rope: Rope, head_dim: int, dtype: torch.dtype, device: torch.device) -> None:
        frequencies = inverse_frequencies(rope, head_dim).to(device)
        self._frequencies = torch.cat((-frequencies, frequencies))
        self._factor = rope.attention_factor
        self._dtype = dtype

    def __call__(self, positions: Tensor) -> Rotation:
        """positions int64 [tokens]."""
        angles = positions[:, None, None].float() * self._frequencies
        cos, sin = angles.cos(), angles.sin()
        if self._factor != 1.0:
            cos, sin = cos * self._factor, sin * self._factor
        return Rotation(cos.to(self._dtype), sin.to(self._dtype))

    def table(self, length: int) -> tuple[Tensor, Tensor]:
        """cos and sin of positions 0 .. length - 1, float32 [length, rotated
        dimensions / 2]."""
        half = len(self._frequencies) // 2
        angles = torch.arange(length)[:, None] * self._frequencies[half:].cpu()
        return angles.cos() * self._factor, angles.sin() * self._factor
