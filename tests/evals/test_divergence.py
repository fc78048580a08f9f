from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from penstock.evals import divergence as module
from penstock.evals.divergence import compare, divergence
from penstock.evals.windows import Window, cut
from tests import oracle
from tests.evals.readers import checkpoint, reader

IDS = oracle.prompts(5, 6, 320)[5]


def test_a_model_does_not_diverge_from_itself(tmp_path: Path) -> None:
    path = checkpoint(tmp_path)
    scores = compare(reader(path), reader(path), cut(IDS, 40, 40))
    assert len(scores.kl) == len(IDS) - 3
    assert not scores.kl.any()
    assert scores.same_top.all()
    assert not scores.regret.any()
    assert np.array_equal(scores.reference_nll, scores.candidate_nll)


def test_figures_are_those_of_transformers(tmp_path: Path) -> None:
    """Two models of one vocabulary; here all at once and in numpy."""
    paths = [checkpoint(tmp_path, seed) for seed in (1, 2)]
    windows = [Window(IDS[:50], 1), Window(IDS[30:80], 20)]
    told: list[int] = []
    scores = compare(reader(paths[0]), reader(paths[1]), windows, told.append)
    assert told == [49, 30]
    at = 0
    for window in windows:
        p, q = (
            oracle.logits(path, tuple(window.ids), torch.float32).double().numpy() for path in paths
        )
        for i in range(window.first, len(window.ids)):
            a, b = (np.exp(x[i - 1]) / np.exp(x[i - 1]).sum() for x in (p, q))
            token = window.ids[i]
            assert (scores.seen[at], scores.ids[at]) == (i, token)
            assert scores.kl[at] == pytest.approx((a * np.log(a / b)).sum(), abs=1e-3)
            assert scores.reference_nll[at] == pytest.approx(-np.log(a[token]), abs=1e-3)
            assert scores.candidate_nll[at] == pytest.approx(-np.log(b[token]), abs=1e-3)
            assert scores.same_top[at] == (a.argmax() == b.argmax())
            assert scores.regret[at] == pytest.approx(a.max() - a[b.argmax()], abs=1e-4)
            at += 1
    assert at == len(scores.kl)
    assert scores.kl.mean() > 0.1


def test_finer_formats_diverge_less(tmp_path: Path) -> None:
    path = checkpoint(tmp_path)
    kl = [
        compare(reader(path), reader(path, name), cut(IDS, 64, 64)).kl.mean()
        for name in ("int8", "int4")
    ]
    assert 0 < kl[0] < 0.1 * kl[1]


def test_logits_are_taken_in_pieces(tmp_path: Path) -> None:
    """A vocabulary of this size leaves room for a few rows at a time."""
    path = checkpoint(tmp_path, vocab_size=module.LOGITS // 7)
    ids = [5, 70_000, 12, 400_000, 3] * 4
    scores = compare(reader(path), reader(path, "int8"), cut(ids, 20, 20))
    assert scores.ids.tolist() == ids[1:]
    assert scores.seen.tolist() == list(range(1, 20))
    assert (scores.kl > 0).all()


def test_a_model_of_nan_diverges_by_nan() -> None:
    logits = torch.randn(2, 5)
    broken = logits.clone()
    broken[1, 3] = torch.nan
    kl, _, nll, *_ = divergence(logits, broken, torch.tensor([0, 0]))
    assert kl.isnan().tolist() == [False, True]
    assert nll.isnan().tolist() == [False, True]


def test_a_token_without_any_probability_adds_nothing() -> None:
    """In the reference; its logarithm must not become 0 * infinity."""
    logits = torch.tensor([[0.0, -1e9, 1.0]])
    kl, *_ = divergence(logits, logits + torch.tensor([[0.0, 1e8, 0.0]]), torch.tensor([0]))
    assert kl.tolist() == [0]
