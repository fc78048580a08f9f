"""Raw logprobs and ranks against torch.log_softmax and sorting."""

from __future__ import annotations

import pytest
import torch

from penstock.core.plan import TokenLogprobs
from penstock.core.request import Sampling
from penstock.engine.sampler import Sampler

V = 50


def check(record: TokenLogprobs, row: torch.Tensor, top: int) -> None:
    exact = torch.log_softmax(row.double(), 0)
    order = sorted(range(V), key=lambda i: (-float(row[i]), i))
    assert record.rank == order.index(record.token) + 1
    assert record.top_ids == order[:top]
    torch.testing.assert_close(record.logprob, exact[record.token].item(), atol=1e-5, rtol=0)
    for token, logprob in zip(record.top_ids, record.top_logprobs, strict=True):
        torch.testing.assert_close(logprob, exact[token].item(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("coarse", [False, True])
def test_output_logprobs_are_of_the_raw_logits(coarse: bool) -> None:
    """Bias, penalties and temperature move the draw, not the logprobs; rows ask differently."""
    raw = torch.randn(5, V, generator=torch.Generator().manual_seed(2)) * 3
    raw = raw.round() if coarse else raw
    asks = [
        Sampling(logprobs=0, logit_bias=((7, 50.0),)),
        Sampling(temperature=0.3),
        Sampling(temperature=2.0, logprobs=5, repetition_penalty=1.5, seed=9),
        Sampling(temperature=0.0, logprobs=64),
        Sampling(logprobs=2, top_k=3, bad_words=((1,),)),
    ]
    sampler = Sampler(V, 5, torch.device("cpu"))
    for slot, sampling in enumerate(asks):
        sampler.enter(slot, sampling, [1, 2, 3], 3)
    sampled = sampler.sample(raw.clone(), list(range(5)), [0] * 5)
    assert list(sampled.logprobs) == [0, 2, 3, 4]
    for row, record in sampled.logprobs.items():
        assert record.token == sampled.ids[row].item()
        check(record, raw[row], asks[row].logprobs or 0)
    assert sampled.logprobs[0].token == 7
    assert sampled.logprobs[3].rank == 1


def test_nobody_asked() -> None:
    sampler = Sampler(V, 1, torch.device("cpu"))
    sampler.enter(0, Sampling(), [1], 1)
    assert sampler.sample(torch.zeros(1, V), [0], [0]).logprobs == {}


@pytest.mark.parametrize("top", [0, 3])
def test_prompt_logprobs(top: int) -> None:
    raw = torch.randn(4, V, generator=torch.Generator().manual_seed(3))
    sampler = Sampler(V, 1, torch.device("cpu"))
    records = sampler.prompt_logprobs(raw, [4, 4, 0, 49], top)
    assert [record.token for record in records] == [4, 4, 0, 49]
    for record, row in zip(records, raw, strict=True):
        check(record, row, top)
    assert sampler.prompt_logprobs(raw[:0], [], top) == []


def test_logprobs_of_a_batch_equal_those_of_a_row_alone() -> None:
    """Bit for bit, over the border of a chunk of rows."""
    vocab = 70_001
    raw = torch.randn(9, vocab, generator=torch.Generator().manual_seed(4))
    ids = list(range(9))
    sampler = Sampler(vocab, 1, torch.device("cpu"))
    together = sampler.prompt_logprobs(raw, ids, 4)
    alone = [sampler.prompt_logprobs(raw[i : i + 1], [i], 4)[0] for i in ids]
    assert together == alone
