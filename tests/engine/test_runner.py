"""The runner alone, driven by hand-made plans."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from penstock.attention.torch_fast import TorchFast
from penstock.core.plan import UNKNOWN, BlockDelta, Entry, StepPlan, TokenLogprobs
from penstock.core.request import Sampling
from penstock.engine.kv import allocate_caches
from penstock.engine.runner import ModelRunner
from penstock.engine.weights import load_model
from penstock.models.base import CausalLM
from tests import oracle

CPU = torch.device("cpu")
SIZE = 16
GREEDY = Sampling(temperature=0.0)


@pytest.fixture(scope="module")
def model(tiny: Path) -> CausalLM:
    torch.set_num_threads(1)
    return load_model(tiny, torch.float32, CPU, TorchFast())


def runner_of(model: CausalLM) -> ModelRunner:
    caches = allocate_caches(
        TorchFast(), model.kv_groups, 16, SIZE, model.num_kv_heads, model.head_dim,
        torch.float32, CPU,
    )  # fmt: skip
    return ModelRunner(model, caches, SIZE, 4, 256, CPU)


def first_plan(prompt: list[int], slot: int, blocks: list[int], **sampling: object) -> StepPlan:
    entry = Entry(slot, "r", prompt, len(prompt), Sampling(temperature=0.0, **sampling))  # type: ignore[arg-type]
    return StepPlan(
        0,
        [entry],
        [slot],
        [0],
        [len(prompt)],
        [prompt[-1]],
        [True],
        [BlockDelta(slot, 0, 0, blocks)],
    )


def decode(step: int, slot: int, start: int, token: int = UNKNOWN) -> StepPlan:
    return StepPlan(step, [], [slot], [start], [1], [token], [True])


def test_an_unknown_token_is_the_one_that_the_last_plan_drew(model: CausalLM, tiny: Path) -> None:
    prompt = oracle.prompts(0, 1, 320)[0] + [7, 8]
    expected = oracle.greedy(tiny, prompt, 3)
    runner = runner_of(model)
    first = runner.run(first_plan(prompt, 2, [5, 3]))
    known = runner.run(decode(1, 2, len(prompt), first.tokens[0][0]))
    unknown = runner.run(decode(2, 2, len(prompt) + 1))
    assert [first.tokens[0][0], known.tokens[0][0], unknown.tokens[0][0]] == expected


def test_prompt_logprobs_are_those_of_every_following_token(model: CausalLM, tiny: Path) -> None:
    prompt = oracle.prompts(0, 6, 320)[5]
    logits = oracle.answer(tiny, tuple(prompt), 1).logits.log_softmax(-1)
    runner = runner_of(model)
    plan = first_plan(prompt, 0, list(range(1, 9)), prompt_logprobs=2, logprobs=1)
    found: list[TokenLogprobs] = []
    for start in range(0, len(prompt), 25):
        end = min(start + 25, len(prompt))
        plan.starts, plan.counts = [start], [end - start]
        plan.samples, plan.tokens = [end == len(prompt)], [prompt[end - 1]]
        result = runner.run(plan)
        found += result.prompt_logprobs.get(0, [])
        plan.entries, plan.blocks = [], []
    assert [f.token for f in found] == prompt[1:]
    for position, record in enumerate(found):
        row = logits[position]
        assert record.logprob == pytest.approx(float(row[record.token]), abs=1e-4)
        assert record.top_ids == row.topk(2).indices.tolist()
    assert result.logprobs[0][0].token == result.tokens[0][0]


def test_a_failed_step_is_a_result_with_an_error(model: CausalLM) -> None:
    runner = runner_of(model)
    runner.run(first_plan([3, 4], 0, [1]))
    broken = decode(1, 0, 10**9)
    result = runner.run(broken)
    assert result.error is not None
    assert "A step failed" in str(result.error["message"])
    assert runner.run(first_plan([3, 4], 0, [1])).error is None


def test_rows_that_cannot_be_drawn_get_nothing_and_others_go_on(model: CausalLM) -> None:
    runner = runner_of(model)
    good, bad = first_plan([3, 4], 0, [1]), first_plan([5, 6], 1, [2])
    masked = tuple((token, -100.0) for token in range(3))
    bad.entries[0] = Entry(1, "bad", [5, 6], 2, Sampling(temperature=0.0, logit_bias=masked))
    runner.run(good)
    runner.run(bad)
    for cache in runner._caches:
        cache[2] = float("nan")
    both = StepPlan(2, [], [0, 1], [2, 2], [1, 1], [9, 9], [True, True])
    tokens = runner.run(both).tokens
    assert len(tokens[0]) == 1
    assert tokens[1] == []
