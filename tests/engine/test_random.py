"""Counter-based numbers: known answers, independence of streams, uniformity."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from penstock.engine import random
from tests.engine import sampling_oracle as oracle


def numbers(seed: int, choice: int, positions: np.ndarray) -> np.ndarray:
    stream = np.full(len(positions), random.stream(seed, choice), dtype=np.uint64)
    return random.uniforms(stream, positions)


def test_the_generator_is_splitmix64() -> None:
    """First outputs of the published generator started at state 0."""
    first = random.uniforms(np.zeros(3, dtype=np.uint64), np.arange(3))
    known = np.array([0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F], dtype=np.uint64)
    assert (first == (known >> np.uint64(11)) * 2.0**-53).all()


@pytest.mark.parametrize("seed", [0, 1, -1, 2**63, 2**64 - 1, -(2**63)])
@pytest.mark.parametrize("choice", [0, 7])
def test_vectors_equal_the_oracle(seed: int, choice: int) -> None:
    positions = np.array([0, 1, 2, 1000, 2**31])
    expected = [oracle.uniform(seed, choice, int(p)) for p in positions]
    assert numbers(seed, choice, positions).tolist() == expected


def test_uniform_within_streams_and_across_seeds() -> None:
    along = numbers(5, 0, np.arange(20_000))
    across = np.array([numbers(seed, 0, np.array([0]))[0] for seed in range(5_000)])
    choices = np.array([numbers(0, choice, np.array([3]))[0] for choice in range(5_000)])
    for sample in (along, across, choices):
        assert stats.kstest(sample, "uniform").pvalue > 1e-4
        assert sample.min() >= 0
        assert sample.max() < 1
        assert abs(np.corrcoef(sample[:-1], sample[1:])[0, 1]) < 0.05
