"""The sampler: every parameter against the oracle, alone and in company; distributions exact."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from penstock.core.request import Sampling
from penstock.engine.draw import MAX_VOCAB
from penstock.engine.sampler import Sampler
from penstock.errors import UnsupportedError
from penstock.kernels import cpu
from penstock.kernels.cpu import program
from tests.engine import sampling_oracle as oracle

CPU = torch.device("cpu")
V = 97
WAYS = [None] if cpu.available() else [None, program.pool(2)]
BOTH_WAYS = pytest.mark.parametrize("workers", WAYS, ids=["torch", "kernels"][: len(WAYS)])
GREEDY = Sampling(temperature=0.0)

ALONE = {
    "plain": Sampling(),
    "greedy": GREEDY,
    "cold": Sampling(temperature=9e-6),
    "hot": Sampling(temperature=3.0),
    "top_k": Sampling(top_k=7),
    "top_k_over_v": Sampling(top_k=V + 5),
    "top_p": Sampling(top_p=0.6),
    "tiny_top_p": Sampling(top_p=1e-9),
    "min_p": Sampling(min_p=0.1),
    "max_min_p": Sampling(min_p=1.0),
    "filters": Sampling(temperature=1.5, top_k=20, top_p=0.9, min_p=0.02),
    "repetition": Sampling(repetition_penalty=1.7),
    "reward": Sampling(temperature=0.7, repetition_penalty=0.5),
    "presence": Sampling(presence_penalty=2.0),
    "frequency": Sampling(frequency_penalty=1.1),
    "penalties": Sampling(0.0, 0, 1.0, 0.0, 1.3, -1.0, 0.8),
    "bias": Sampling(logit_bias=((3, 4.5), (5, -100.0), (3, 0.25))),
    "min_tokens": Sampling(min_tokens=6, stop_ids=tuple(range(60))),
    "bad_words": Sampling(bad_words=((2,), (1, 2), (9, 8, 7), (4, 4))),
    "everything": Sampling(
        0.8,
        30,
        0.95,
        0.001,
        1.2,
        0.5,
        0.3,
        ((1, 2.0),),
        ((1, 2), (3,)),
        5,
        2,
        3,
        None,
        "",
        9,
        4,
        (1,),
    ),
}


def logits_of(rows: int, seed: int, coarse: bool = False) -> torch.Tensor:
    """Random logits; `coarse` ones are full of ties, as those of a bf16 model."""
    x = torch.randn(rows, V, generator=torch.Generator().manual_seed(seed)) * 2
    return (x * 2).round() / 2 if coarse else x


def run(
    samplings: list[Sampling],
    steps: int,
    coarse: bool = False,
    resumed_at: int = -1,
    workers: Any = None,
) -> list[list[int]]:
    """Outputs of `steps` steps; all rows see the same logits. At `resumed_at` all re-enter."""
    sampler = Sampler(V, len(samplings) + 1, CPU, workers)
    prompt = [1, 9, 8, 1, 4]
    outputs: list[list[int]] = [[] for _ in samplings]
    slots = list(range(len(samplings), 0, -1))
    for slot, sampling in zip(slots, samplings, strict=True):
        sampler.enter(slot, sampling, prompt, len(prompt))
    for step in range(steps):
        if step == resumed_at:
            sampler = Sampler(V, len(samplings) + 1, CPU, workers)
            for slot, sampling, output in zip(slots, samplings, outputs, strict=True):
                sampler.enter(slot, sampling, prompt + output, len(prompt))
        logits = logits_of(1, step, coarse).repeat(len(samplings), 1)
        drawn = sampler.sample(logits, slots, [step] * len(slots))
        for output, token in zip(outputs, drawn.ids.tolist(), strict=True):
            output.append(token)
    return outputs


def expected(sampling: Sampling, steps: int, coarse: bool) -> list[int]:
    output: list[int] = []
    for step in range(steps):
        row = logits_of(1, step, coarse)[0].numpy()
        output.append(oracle.sample(row, sampling, [1, 9, 8, 1, 4], output))
    return output


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("name", ALONE)
def test_each_parameter_alone_equals_the_oracle(name: str, coarse: bool) -> None:
    samplings = [replace(ALONE[name], seed=seed) for seed in range(5)]
    want = [expected(s, 12, coarse) for s in samplings]
    assert [run([s], 12, coarse)[0] for s in samplings] == want


@BOTH_WAYS
@pytest.mark.parametrize("coarse", [False, True])
def test_a_mixed_batch_equals_each_row_alone(coarse: bool, workers: Any) -> None:
    samplings = [replace(s, seed=i) for i, s in enumerate(ALONE.values())]
    together = run(samplings, 20, coarse, workers=workers)
    assert together == [expected(s, 20, coarse) for s in samplings]
    assert together == [run([s], 20, coarse, workers=workers)[0] for s in samplings]


ids = st.integers(0, V - 1)
any_sampling = st.builds(
    Sampling,
    temperature=st.one_of(st.just(0.0), st.floats(0.01, 5)),
    top_k=st.one_of(st.just(0), st.integers(0, V + 3)),
    top_p=st.one_of(st.just(1.0), st.floats(0.01, 1)),
    min_p=st.one_of(st.just(0.0), st.floats(0, 1)),
    repetition_penalty=st.one_of(st.just(1.0), st.floats(0.2, 3)),
    presence_penalty=st.one_of(st.just(0.0), st.floats(-2, 2)),
    frequency_penalty=st.one_of(st.just(0.0), st.floats(-2, 2)),
    logit_bias=st.dictionaries(ids, st.floats(-100, 100), max_size=3).map(
        lambda d: tuple(d.items())
    ),
    bad_words=st.lists(
        st.lists(st.integers(0, 9), min_size=1, max_size=3).map(tuple), max_size=3
    ).map(tuple),
    seed=st.integers(-(2**63), 2**64 - 1),
    choice=st.integers(0, 127),
    min_tokens=st.integers(0, 5),
    stop_ids=st.lists(ids, max_size=4).map(tuple),
)


@given(st.lists(any_sampling, min_size=1, max_size=5), st.booleans())
@settings(deadline=None, max_examples=60)
def test_any_mix_equals_the_oracle(samplings: list[Sampling], coarse: bool) -> None:
    want = [expected(s, 4, coarse) for s in samplings]
    assert [run(samplings, 4, coarse, workers=way) for way in WAYS] == [want] * len(WAYS)


@BOTH_WAYS
def test_a_large_vocabulary_over_the_border_of_a_chunk_of_rows(workers: Any) -> None:
    """Nine rows and more of each way of drawing; top_k above and below the shared selection."""
    vocab = 60_000
    kinds = [Sampling(), Sampling(top_k=2000, top_p=0.9), Sampling(top_k=40), Sampling(top_p=0.7)]
    samplings = [replace(kinds[i % 4], seed=i) for i in range(36)]
    row = torch.randn(1, vocab, generator=torch.Generator().manual_seed(0)) * 3
    sampler = Sampler(vocab, 36, CPU, workers)
    for slot, sampling in enumerate(samplings):
        sampler.enter(slot, sampling, [1], 1)
    drawn = sampler.sample(row.repeat(36, 1), list(range(36)), [0] * 36).ids.tolist()
    checked = [*range(4), *range(32, 36)]
    want = [oracle.sample(row[0].numpy(), samplings[i], [1], []) for i in checked]
    assert [drawn[i] for i in checked] == want


def check_distribution(numbered: list[Sampling], positions: list[int]) -> None:
    """Chi-square over draws of one row of logits, a slot and a position each: deterministic."""
    rows, draws, vocab = 200, len(numbered), 24
    row = logits_of(1, 11)[0, :vocab] / 3
    sampler = Sampler(vocab, rows, CPU)
    counts = np.zeros(vocab)
    prompt, output = [3, 4], [4, 5]
    for first in range(0, draws, rows):
        for slot, sampling in enumerate(numbered[first : first + rows]):
            sampler.enter(slot, sampling, prompt + output, len(prompt))
        part = positions[first : first + rows]
        drawn = sampler.sample(row.repeat(rows, 1), list(range(rows)), part)
        counts += np.bincount(drawn.ids.numpy(), minlength=vocab)
    x = oracle.adjusted(row.numpy(), numbered[0], prompt, output)
    exact = oracle.exact_probabilities(x, numbered[0])
    assert len(exact) > 4
    assert counts.sum() == sum(counts[list(exact)]) == draws
    assert stats.chisquare(counts[list(exact)], [p * draws for p in exact.values()]).pvalue > 1e-4


DISTRIBUTIONS = {
    "plain": Sampling(),
    "cool": Sampling(temperature=0.5),
    "top_k": Sampling(temperature=2.0, top_k=9),
    "top_p": Sampling(top_p=0.8),
    "min_p": Sampling(min_p=0.15),
    "filters": Sampling(temperature=1.3, top_k=12, top_p=0.85, min_p=0.05),
    "penalties": Sampling(
        repetition_penalty=1.5, presence_penalty=0.7, frequency_penalty=0.4, top_p=0.95
    ),
    "bias": Sampling(logit_bias=((0, 2.0), (1, -3.0))),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("vary", ["seed", "choice"])
def test_the_distribution_is_exact(name: str, vary: str) -> None:
    numbered = [replace(DISTRIBUTIONS[name], **{vary: number}) for number in range(20_000)]
    check_distribution(numbered, [2] * 20_000)


def test_the_distribution_along_the_positions_of_one_request() -> None:
    check_distribution([DISTRIBUTIONS["filters"]] * 20_000, list(range(20_000)))


def test_top_k_of_one_equals_greedy() -> None:
    for coarse in (False, True):
        samplings = [Sampling(temperature=2.0, top_k=1, seed=s) for s in range(3)]
        assert run(samplings, 10, coarse) == run([GREEDY] * 3, 10, coarse)


def test_greedy_takes_the_lowest_of_the_best() -> None:
    logits = torch.zeros(1, V)
    logits[0, [90, 40, 41]] = 3.0
    sampler = Sampler(V, 1, CPU)
    sampler.enter(0, GREEDY, [1], 1)
    assert sampler.sample(logits, [0], [0]).ids.tolist() == [40]


def test_seeds_repeat_and_choices_differ() -> None:
    samplings = [Sampling(seed=3, choice=c) for c in range(4)] + [Sampling(seed=4)]
    first = run(samplings, 20)
    assert first == run(samplings, 20)
    assert len({tuple(output) for output in first}) == 5


@pytest.mark.parametrize("at", [1, 7])
def test_a_resumed_slot_goes_on_as_if_nothing_had_happened(at: int) -> None:
    samplings = [replace(s, seed=i) for i, s in enumerate(ALONE.values())]
    assert run(samplings, 12, resumed_at=at) == run(samplings, 12)


def test_a_slot_forgets_its_former_request() -> None:
    """Slots change owner: neither counts nor history of the former one remain."""
    sampler = Sampler(V, 1, CPU)
    heavy = replace(ALONE["everything"], temperature=0.0)
    for sampling in (heavy, GREEDY, heavy, ALONE["penalties"]):
        sampler.enter(0, sampling, [7, 7, 9], 3)
        output: list[int] = []
        for step in range(6):
            row = logits_of(1, step)
            want = oracle.sample(row[0].numpy(), sampling, [7, 7, 9], output)
            output += sampler.sample(row, [0], [step]).ids.tolist()
            assert output[-1] == want


def test_histories_grow_past_their_first_capacity() -> None:
    sampling = Sampling(temperature=0.0, frequency_penalty=0.5)
    sampler = Sampler(V, 9, CPU)
    prompt = [5] * 250
    for slot in range(9):
        sampler.enter(slot, sampling, prompt, 250)
    output: list[int] = []
    for step in range(20):
        row = logits_of(1, step % 3)
        want = oracle.sample(row[0].numpy(), sampling, prompt, output)
        drawn = sampler.sample(row.repeat(9, 1), list(range(9)), [step] * 9).ids.tolist()
        assert drawn == [want] * 9
        output.append(want)


def test_bad_words_across_the_prompt_border() -> None:
    """(9, 8, 7): 9 ends the prompt, 8 is drawn first, so 7 must not be drawn second."""
    sampler = Sampler(V, 1, CPU)
    sampler.enter(0, Sampling(temperature=0.0, bad_words=((9, 8, 7),)), [7, 9], 2)
    want_8, want_7 = torch.zeros(2, 1, V)
    want_8[0, 8], want_7[0, 7], want_7[0, 6] = 5.0, 5.0, 4.0
    assert sampler.sample(want_8, [0], [0]).ids.tolist() == [8]
    assert sampler.sample(want_7.clone(), [0], [1]).ids.tolist() == [6]
    assert sampler.sample(want_7.clone(), [0], [2]).ids.tolist() == [7]


def test_bias_of_plus_and_minus_100_forces_and_bans() -> None:
    force = Sampling(logit_bias=((42, 100.0),))
    ban = Sampling(logit_bias=tuple((i, -100.0) for i in range(V) if i != 17))
    outputs = run([force, ban], 30)
    assert outputs == [[42] * 30, [17] * 30]


def test_min_tokens_ends_exactly_at_min_tokens() -> None:
    sampler = Sampler(V, 1, CPU)
    sampler.enter(0, Sampling(temperature=0.0, min_tokens=2, stop_ids=(5, 5, 6)), [1], 1)
    row = torch.zeros(1, V)
    row[0, 5], row[0, 6], row[0, 30] = 9.0, 8.0, 7.0
    assert [sampler.sample(row.clone(), [0], [p]).ids.item() for p in range(3)] == [30, 30, 5]


@BOTH_WAYS
@pytest.mark.parametrize("poison", [float("nan"), -float("nan"), float("inf")])
def test_a_bad_row_fails_alone(poison: float, workers: Any) -> None:
    samplings = [replace(s, seed=i) for i, s in enumerate(ALONE.values())]
    samplings = [samplings[i // 2] for i in range(2 * len(samplings))]
    sampler = Sampler(V, len(samplings), CPU, workers)
    slots = list(range(len(samplings)))
    for slot, sampling in enumerate(samplings):
        sampler.enter(slot, sampling, [1, 2], 2)
    clean = sampler.sample(logits_of(1, 5).repeat(len(slots), 1), slots, [0] * len(slots))
    for slot, sampling in enumerate(samplings):
        sampler.enter(slot, sampling, [1, 2], 2)
    logits = logits_of(1, 5).repeat(len(slots), 1)
    logits[1::2, 71] = poison
    mixed = sampler.sample(logits, slots, [0] * len(slots))
    assert mixed.bad_rows == slots[1::2]
    assert mixed.ids[0::2].tolist() == clean.ids[0::2].tolist()
    assert clean.bad_rows == []


def test_a_row_with_everything_masked_is_bad() -> None:
    everything = Sampling(min_tokens=1, stop_ids=tuple(range(V)))
    sampler = Sampler(V, 2, CPU)
    sampler.enter(0, everything, [1], 1)
    sampler.enter(1, GREEDY, [1], 1)
    assert sampler.sample(logits_of(2, 0), [0, 1], [0, 0]).bad_rows == [0]


def test_a_vocabulary_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="vocabulary"):
        Sampler(MAX_VOCAB + 1, 1, CPU)


def test_an_empty_slot_is_named() -> None:
    with pytest.raises(KeyError, match="slot 1"):
        Sampler(V, 2, CPU).sample(logits_of(1, 0), [1], [0])
