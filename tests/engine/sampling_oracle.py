"""The sampler's specification once more, one row at a time, in numpy and Python integers."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from penstock.core.request import Sampling

F32 = np.float32
M = 2**64 - 1
G = 0x9E3779B97F4A7C15


def mix(z: int) -> int:
    z &= M
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & M
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & M
    return z ^ (z >> 31)


def uniform(seed: int, choice: int, position: int) -> float:
    stream = mix(mix(seed + G) + (choice + 1) * G)
    return (mix(stream + (position + 1) * G) >> 11) / 2**53


def adjusted(
    logits: NDArray[np.float32], sampling: Sampling, prompt: list[int], output: list[int]
) -> NDArray[np.float32]:
    """Bias, masks and penalties; the drawn position is len(output)."""
    x = logits.astype(F32).copy()
    for token, bias in sampling.logit_bias:
        x[token] += F32(bias)
    known = prompt + output
    for word in sampling.bad_words:
        *prefix, last = word
        if known[len(known) - len(prefix) :] == prefix:
            x[last] = -np.inf
    if len(output) < sampling.min_tokens:
        x[list(sampling.stop_ids)] = -np.inf
    for token in set(known):
        r = F32(sampling.repetition_penalty)
        x[token] = x[token] / r if x[token] > 0 else x[token] * r
        count = output.count(token)
        x[token] -= F32(sampling.frequency_penalty) * F32(count)
        if count:
            x[token] -= F32(sampling.presence_penalty)
    return x


def kept(x: NDArray[np.float32], sampling: Sampling) -> dict[int, int]:
    """Fixed-point weights of the ids that survive the filters."""
    ids = sorted(range(len(x)), key=lambda i: (-float(x[i]), i))
    if 0 < sampling.top_k < len(x):
        ids = ids[: sampling.top_k]
    scaled = (x.astype(np.float64) - float(x.max())) * (1 / sampling.temperature)
    weight = {i: math.floor(2.0**40 * np.exp(scaled[i])) for i in ids}
    ids.sort(key=lambda i: (-weight[i], i))
    if sampling.top_p < 1:
        total = sum(weight.values())
        need = max(1, min(total, math.ceil(sampling.top_p * float(total))))
        prefix, mass = [], 0
        for i in ids:
            if mass >= need:
                break
            prefix.append(i)
            mass += weight[i]
        ids = prefix
    least = math.ceil(sampling.min_p * 2.0**40)
    return {i: weight[i] for i in sorted(ids) if weight[i] >= least}


def sample(
    logits: NDArray[np.float32], sampling: Sampling, prompt: list[int], output: list[int]
) -> int:
    """The id, or -1 where the row cannot be drawn from."""
    x = adjusted(logits, sampling, prompt, output)
    if not np.isfinite(x.max()):
        return -1
    if sampling.temperature < 1e-5:
        return int(np.argmax(x))
    weights = kept(x, sampling)
    total = sum(weights.values())
    u = uniform(sampling.seed, sampling.choice, len(output))
    target = min(total - 1, math.floor(u * float(total)))
    for token, weight in weights.items():
        target -= weight
        if target < 0:
            return token
    raise AssertionError("the target lies below the total")


def exact_probabilities(x: NDArray[np.float32], sampling: Sampling) -> dict[int, float]:
    """The textbook distribution, without fixed point: softmax, then each filter renormalised."""
    z = x.astype(np.float64) / sampling.temperature
    p = np.exp(z - z.max())
    order = sorted(range(len(x)), key=lambda i: (-p[i], i))
    if sampling.top_k:
        order = order[: sampling.top_k]
    total = Fraction(float(sum(p[i] for i in order)))
    mass, nucleus = Fraction(0), []
    for i in order:
        if mass >= Fraction(sampling.top_p) * total:
            break
        nucleus.append(i)
        mass += Fraction(float(p[i]))
    chosen = [i for i in nucleus if p[i] >= sampling.min_p * p.max()]
    norm = sum(p[i] for i in chosen)
    return {i: float(p[i] / norm) for i in chosen}
