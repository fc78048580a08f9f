"""One step of sampling: 32 rows of a vocabulary of 151,936, beside transformers' and one read.

    python -m benchmarks.engine.sampler [--threads 1] [--rows 32] [--vocab 151936] [--spread 3.0]

`transformers` is its own chain of processors, then softmax and multinomial: what `generate` does
for a batch whose rows share their parameters (it cannot mix them; the last line is ours alone).
`read` is the least that anybody needs: one pass over the logits. `--spread` is the standard
deviation of the random logits: 5 is near a trained model, 1 is a flat row, the worst case of top_p.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from transformers.generation import logits_process as peer

from benchmarks.harness import arguments, interleaved, median_ratio, save, verdict
from penstock.core.request import Sampling
from penstock.engine.sampler import Sampler
from penstock.report.stats import median

PROMPT = list(range(1000, 1500))
KINDS = {
    "greedy": Sampling(temperature=0.0),
    "temperature": Sampling(temperature=0.8),
    "top_k 50": Sampling(temperature=0.8, top_k=50),
    "top_p 0.9": Sampling(temperature=0.8, top_p=0.9),
    "top_k 50, top_p 0.9": Sampling(temperature=0.8, top_k=50, top_p=0.9),
    "min_p 0.05": Sampling(temperature=0.8, min_p=0.05),
    "repetition 1.1": Sampling(temperature=0.8, repetition_penalty=1.1),
}


def ours(samplings: list[Sampling], logits: Tensor) -> Callable[[int], float]:
    """Seconds of a step; row i has the parameters samplings[i]."""
    rows = len(samplings)
    sampler = Sampler(logits.shape[1], rows, logits.device)
    for slot, sampling in enumerate(samplings):
        sampler.enter(slot, sampling, PROMPT, len(PROMPT))
    slots = list(range(rows))

    def step(turn: int) -> float:
        own = logits.clone()
        began = perf_counter()
        sampler.sample(own, slots, [turn] * rows).ids.tolist()
        return perf_counter() - began

    return step


def theirs(sampling: Sampling, logits: Tensor) -> Callable[[int], float]:
    """The same with the processors that `generate` builds for these parameters."""
    chain = peer.LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        chain.append(peer.RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    if sampling.temperature not in (0, 1):
        chain.append(peer.TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        chain.append(peer.TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        chain.append(peer.TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        chain.append(peer.MinPLogitsWarper(sampling.min_p))
    known: Any = torch.tensor([PROMPT] * len(logits))

    def step(turn: int) -> float:
        own = logits.clone()
        began = perf_counter()
        scores = chain(known, own)
        if sampling.temperature == 0:
            scores.argmax(dim=1).tolist()
        else:
            torch.multinomial(scores.softmax(dim=1), 1).tolist()
        return perf_counter() - began

    return step


def read(logits: Tensor) -> float:
    """Seconds of the fastest pass over the logits."""

    def once() -> float:
        began = perf_counter()
        logits.amax()
        return perf_counter() - began

    return min(once() for _ in range(9))


def main() -> None:
    given = arguments(__doc__ or "", rows=32, vocab=151_936, spread=3.0)
    if given.tiny:
        given.rows, given.vocab = 4, 2000
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(given.rows, given.vocab, generator=generator) * given.spread
    floor = read(logits) * 1e3
    print(f"one read of the logits: {floor:.2f} ms\n")
    print(f"{'parameters':22}{'ours ms':>10}{'transformers ms':>17}{'ratio':>8}{'reads':>8}")
    figures: dict[str, Any] = {"read_ms": floor}
    with torch.inference_mode():
        for name, sampling in KINDS.items():
            step, peer_step = ours([sampling] * given.rows, logits), theirs(sampling, logits)
            step(0), peer_step(0)
            mine, other = interleaved(given.pairs, step, peer_step)
            ms, peer_ms, ratio = median(mine) * 1e3, median(other) * 1e3, median_ratio(other, mine)
            print(f"{name:22}{ms:10.1f}{peer_ms:17.1f}{ratio:8.2f}{ms / floor:8.1f}")
            figures[name] = {"ours_ms": ms, "transformers_ms": peer_ms, "ratio": ratio}
        kinds = list(KINDS.values())
        step = ours([kinds[row % len(kinds)] for row in range(given.rows)], logits)
        step(0)
        mixed = median([step(turn) for turn in range(given.pairs)]) * 1e3
    print(f"{'all of them, mixed':22}{mixed:10.1f}{'':17}{'':8}{mixed / floor:8.1f}")
    figures["mixed_ms"] = mixed
    print(verdict("mixed step, ms", mixed, "<= 60", mixed <= 60))
    save("sampler", given, figures)


if __name__ == "__main__":
    main()
