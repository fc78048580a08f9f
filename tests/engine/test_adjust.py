"""Masks, bad words and penalties one by one; histories kept on the device."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.request import Sampling
from penstock.engine import adjust
from tests.engine import sampling_oracle as oracle

CPU = torch.device("cpu")
V = 13
INF = float("inf")


def test_masks_hold_below_their_position() -> None:
    """A bias always, a one-token bad word always, stop ids below min_tokens."""
    samplings = [
        Sampling(),
        Sampling(logit_bias=((3, 1.5), (3, 0.25), (4, -2.0)), bad_words=((4,), (1, 2))),
        Sampling(min_tokens=2, stop_ids=(0, 0, 12)),
    ]
    masks = adjust.build_masks(samplings, V, CPU)
    assert masks is not None
    for position, stop in [(0, -INF), (1, -INF), (2, 0.0)]:
        logits = torch.zeros(3, V)
        masks.apply(logits, torch.full((3,), position))
        expected = torch.zeros(3, V)
        expected[1, 3], expected[1, 4] = 1.75, -INF
        expected[2, 0] = expected[2, 12] = stop
        assert torch.equal(logits, expected)


def test_nothing_is_built_for_nothing() -> None:
    plain = [Sampling(), Sampling(temperature=0.0, top_k=3, stop_ids=(4,))]
    assert adjust.build_masks(plain, V, CPU) is None
    assert adjust.build_bad_words(plain, [-1, -1], [1, 1], V, CPU) is None
    assert adjust.build_penalties(plain, [-1, -1], CPU) is None
    assert not any(adjust.looks_back(sampling) for sampling in plain)
    assert not adjust.looks_back(Sampling(bad_words=((4,),)))
    assert adjust.looks_back(Sampling(bad_words=((4, 5),)))


@pytest.mark.parametrize(
    ("tokens", "banned"),
    [
        ([], []),
        ([1], [2]),
        ([5, 1], [2]),
        ([1, 5], []),
        ([7, 7], [8]),
        ([7], []),
        ([7, 7, 1], [2, 9]),
    ],
)
def test_bad_words_need_the_whole_prefix(tokens: list[int], banned: list[int]) -> None:
    """Prefixes of different lengths, longer than what is known, and with the same last id."""
    sampling = Sampling(bad_words=((1, 2), (6, 2), (7, 7, 8), (7, 7, 1, 9)))
    histories = adjust.Histories(V, CPU)
    row = histories.take(tokens, len(tokens))
    words = adjust.build_bad_words([sampling], [row], [len(tokens)], V, CPU)
    assert words is not None
    logits = torch.zeros(1, V)
    words.apply(logits, torch.tensor([0]), histories)
    assert torch.nonzero(logits[0] == -INF)[:, 0].tolist() == banned


@given(
    st.lists(st.integers(0, V - 1), max_size=9),
    st.integers(0, 9),
    st.floats(0.1, 4),
    st.floats(-2, 2),
    st.floats(-2, 2),
)
@settings(deadline=None, max_examples=80)
def test_penalties_equal_the_oracle(
    tokens: list[int], num_prompt: int, repetition: float, presence: float, frequency: float
) -> None:
    num_prompt = min(num_prompt, len(tokens))
    sampling = Sampling(
        repetition_penalty=repetition, presence_penalty=presence, frequency_penalty=frequency
    )
    histories = adjust.Histories(V, CPU)
    row = histories.take(tokens, num_prompt)
    penalties = adjust.build_penalties([Sampling(), sampling], [-1, row], CPU)
    logits = torch.linspace(-3, 3, V).repeat(2, 1)
    expected = oracle.adjusted(
        logits[0].numpy(), sampling, tokens[:num_prompt], tokens[num_prompt:]
    )
    if penalties is not None:
        penalties.apply(logits, histories, length=len(tokens) + 3)
    assert logits[1].tolist() == expected.tolist()
    assert torch.equal(logits[0], torch.linspace(-3, 3, V))


def test_a_row_kept_up_by_draws_equals_one_taken_with_them() -> None:
    histories = adjust.Histories(V, CPU)
    grown, whole = histories.take([5, 6], 2), histories.take([5, 6, 6, 2], 2)
    for place, token in [(2, 6), (3, 2)]:
        histories.record(torch.tensor([grown]), torch.tensor([place]), torch.tensor([token]))
    assert torch.equal(histories.counts[grown], histories.counts[whole])
    assert histories.tokens[grown, :4].tolist() == histories.tokens[whole, :4].tolist()
    assert histories.counts[grown, [2, 5, 6]].tolist() == [2, 1, 3]


def test_rows_are_used_again_and_grow_without_loss() -> None:
    histories = adjust.Histories(V, CPU)
    rows = [histories.take([i], 1) for i in range(6)]
    assert len(set(rows)) == 6
    histories.reserve(1000)
    assert histories.tokens[rows, 0].tolist() == list(range(6))
    histories.give(rows[2])
    assert histories.take([9, 9], 1) == rows[2]
    assert histories.counts[rows[2]].tolist() == [0] * 9 + [3] + [0] * 3
