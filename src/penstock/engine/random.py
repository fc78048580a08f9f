"""Counter-based random numbers: a pure function of (seed, choice, position), no generator state.

A number is the output of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number
Generators, OOPSLA 2014) at a place that is computed, not reached. All arithmetic is modulo 2^64:

    mix(z):  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
             z = (z ^ (z >> 27)) * 0x94D049BB133111EB
             z =  z ^ (z >> 31)
    stream(seed, choice)    = mix(mix(seed + G) + (choice + 1) * G)    G = 0x9E3779B97F4A7C15
    bits(stream, position)  = mix(stream + (position + 1) * G)
    uniform                 = (bits >> 11) * 2^-53, in [0, 1)

so that preemption, batching and replay cannot move a request's draws.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MASK = 2**64 - 1
_GAMMA = 0x9E3779B97F4A7C15


def stream(seed: int, choice: int) -> int:
    """64 bits that name the sequence of draws of one choice. `seed`: any 64-bit integer."""
    return _mix((_mix(seed + _GAMMA) + (choice + 1) * _GAMMA) & _MASK)


def uniforms(streams: NDArray[np.uint64], positions: NDArray[np.int64]) -> NDArray[np.float64]:
    """One float64 in [0, 1) for each (stream, output position); both [R]."""
    z = streams + (positions.astype(np.uint64) + np.uint64(1)) * np.uint64(_GAMMA)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    uniform: NDArray[np.float64] = (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return uniform


def _mix(z: int) -> int:
    z &= _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)
