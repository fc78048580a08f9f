"""One run: an engine group with a row of features, eight prompts, two requests that leave."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from penstock.config import Config
from penstock.engine.group import EngineGroup, Restarts
from penstock.engine.kv import block_bytes
from penstock.engine.load import choose_dtype
from penstock.engine.weights import read_config, read_plan
from penstock.layers.decoder import DecoderPlan
from penstock.llm.async_llm import AsyncLLM
from penstock.llm.offline import config_of
from penstock.parallel.stages import Stage
from penstock.text.outputs import CompletionOutput, PositionLogprobs, RequestOutput
from penstock.text.params import SamplingParams
from tests import oracle, vocabularies
from tests.composition.rows import BY_NAME, Row
from tests.engine.test_group import balanced

Program = Sequence[str]
BLOCK, NEW, LEAVER = 16, 24, 60
SHORT_CACHE = 10
"""blocks of a KV group where memory is short: a little more than the longest request needs"""
LOGPROB_TOLERANCE = 5e-4
SHAPE = oracle.Shape(
    "composed",
    "Qwen3Config",
    seed=1,
    fields={
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 128,
        "head_dim": 16,
        "num_hidden_layers": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "use_sliding_window": True,
        "sliding_window": 40,
        "eos_token_id": 2,
    },
)
"""Two KV groups; parts that int4's groups of 32 and two ranks can share."""

USERS: dict[str, tuple[int, ...]] = {
    "n > 1": (0, 2, 4, 6),
    "logprobs": (0, 1, 2, 3, 4, 5),
    "prompt logprobs": (0, 3, 7),
    "stop strings": (2, 3, 4, 5, 6, 7),
}
"""Which of the eight prompts use a feature of requests; all where it has no line here. Every two
of these meet, and stand beside requests that have neither."""


def make_checkpoint(folder: Path) -> Path:
    made = oracle.make_checkpoint("qwen3", SHAPE, SHAPE.seed, folder)
    names = {"eos_token": "<|im_end|>"}
    return vocabularies.write_folder(made, vocabularies.byte_level_json(), tokenizer_config=names)


def prompts() -> list[list[int]]:
    """Of 1 to 90 tokens; most begin alike."""
    draw = random.Random(SHAPE.seed)

    def ids(count: int) -> list[int]:
        return [draw.randrange(3, 500) for _ in range(count)]

    base = ids(80)
    return [
        *(ids(1), base[:33], ids(15), base[:64] + ids(6)),
        *(base[:48] + ids(9), base[:5], base[:64] + ids(20), base + ids(10)),
    ]


def configure(folder: Path, row: Row, **options: Any) -> Config:
    """Of an engine with exactly these features, on one thread a process."""
    for name, feature in BY_NAME.items():
        options |= feature.options if name in row else feature.off
    config = config_of(
        model=str(folder),
        **(
            {"dtype": "float32", "max_num_seqs": 8, "num_threads": 1, "block_size": BLOCK} | options
        ),
    )
    if "preemption" not in row:
        return config
    return config_of(**config.values() | {"kv_cache_memory_bytes": _short(config, folder)})


def _short(config: Config, folder: Path) -> int:
    """Bytes of SHORT_CACHE blocks a group on each process."""
    raw = read_config(folder)
    plan = read_plan(raw, folder / "config.json")
    assert isinstance(plan, DecoderPlan)
    engine = config.engine
    stages = [Stage(i, engine.pipeline_parallel_size) for i in range(engine.pipeline_parallel_size)]
    owned = [set(stage.layers(*plan.costs)) for stage in stages]
    layers = max(len(own & set(group.layers)) for own in owned for group in plan.kv_groups)
    heads = max(1, plan.num_kv_heads // engine.tensor_parallel_size)
    each = layers * block_bytes(
        plan.kv_groups[:1], BLOCK, heads, plan.head_dim, choose_dtype(config, raw)
    )
    return SHORT_CACHE * len(plan.kv_groups) * each // len(plan.kv_groups[0].layers)


@dataclass(frozen=True)
class Case:
    """What one prompt gets from a plain engine that serves nothing else meanwhile."""

    prompt: list[int]
    greedy: CompletionOutput
    drawn: list[CompletionOutput]
    """two choices at a temperature, from a seed"""
    prompt_logprobs: list[PositionLogprobs | None]

    @property
    def stop(self) -> str:
        """A text that ends the greedy answer before its end."""
        text = self.greedy.text
        found = [text[i : i + 2] for i in range(len(text) // 2, len(text) - 2)]
        return next(piece for piece in found if "\ufffd" not in piece)


GREEDY: dict[str, Any] = {"temperature": 0.0, "max_tokens": NEW, "ignore_eos": True}


@asynccontextmanager
async def running(
    config: Config, program: Program, restarts: Restarts | None = None
) -> AsyncIterator[AsyncLLM]:
    llm = await AsyncLLM.start(config, EngineGroup(config, program, restarts))
    try:
        yield llm
    finally:
        await llm.close()


class Oracle:
    """Answers of plain engines, by format and degree of tensor parallelism: where numbers are
    brought into a format in parts, the degree is a part of their definition."""

    def __init__(self, folder: Path, program: Program) -> None:
        self.folder = folder
        self._program = program
        self._known: dict[Row, list[Case]] = {}

    async def cases(self, row: Row) -> list[Case]:
        formats = {name for name in row if "quantization" in BY_NAME[name].options}
        plain = frozenset(formats | ({"tensor parallel"} & row if formats else set()))
        if plain not in self._known:
            async with running(configure(self.folder, plain), self._program) as llm:
                self._known[plain] = [
                    await _alone(llm, i, prompt) for i, prompt in enumerate(prompts())
                ]
            if not plain:
                for case in self._known[plain]:
                    expected = oracle.greedy(self.folder, case.prompt, NEW)
                    assert case.greedy.token_ids == expected
        return self._known[plain]


async def _alone(llm: AsyncLLM, index: int, prompt: list[int]) -> Case:
    asked = SamplingParams(**GREEDY, logprobs=2, prompt_logprobs=1)
    one = await (await llm.generate(prompt, asked)).result()
    two = await (await llm.generate(prompt, SamplingParams(**GREEDY | _draws(index)))).result()
    assert one.prompt_logprobs is not None
    return Case(prompt, one.outputs[0], two.outputs, one.prompt_logprobs)


def _draws(index: int) -> dict[str, Any]:
    return {"n": 2, "temperature": 0.9, "seed": index, "logprobs": 2}


def asked(
    row: Row, index: int, case: Case, everywhere: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sampling parameters and options of a request. everywhere: whatever USERS says."""
    params, options = dict(GREEDY), {}
    for name in row:
        if not everywhere and index not in USERS.get(name, range(8)):
            continue
        for field, value in BY_NAME[name].request.items():
            if field == "priority":
                options[field] = index % 3
            elif field == "stop":
                params[field] = case.stop
            elif field == "n":
                params |= _draws(index) | {"logprobs": params.get("logprobs")}
            else:
                params[field] = value
    return params, options


async def check(row: Row, folder_oracle: Oracle, program: Program) -> None:
    """A run gives every request what a plain engine gives it, and leaves nothing behind."""
    cases = await folder_oracle.cases(row)
    config = configure(folder_oracle.folder, row)
    async with running(config, program) as llm:
        group = llm.client
        assert isinstance(group, EngineGroup)
        runs = [ask(llm, row, i, case) for i, case in enumerate(cases)]
        await asyncio.gather(*runs, leave(llm, cases[1].prompt, True), leave(llm, [5], False))
        await balanced(group, config.engine.data_parallel_size)
        stats = group.stats()
        assert stats.restarts == 0
        if "preemption" in row:
            assert stats.preemptions > 0
        if "prefix cache" in row:
            assert stats.prefix_hits > 0


async def leave(llm: AsyncLLM, prompt: list[int], begun: bool) -> None:
    """A request whose client goes away, before or after its first token."""
    generation = await llm.generate(prompt, SamplingParams(**GREEDY | {"max_tokens": LEAVER}))
    if begun:
        await anext(generation)
    await generation.aclose()


async def ask(llm: AsyncLLM, row: Row, index: int, case: Case, everywhere: bool = False) -> None:
    """Send the prompt of a case with the row's features; the answer must be the case's."""
    params, options = asked(row, index, case, everywhere)
    generation = await llm.generate(case.prompt, SamplingParams(**params), **options)
    texts: dict[int, str] = defaultdict(str)
    async for delta in generation:
        texts[delta.index] += delta.text
    output = generation.output()
    wanted = case.drawn if params.get("n") == 2 else [case.greedy]
    for found, expected in zip(output.outputs, wanted, strict=True):
        assert texts[found.index] == found.text
        _same(found, expected, params)
    _same_prompt(output, case, params)


def _same(found: CompletionOutput, expected: CompletionOutput, params: dict[str, Any]) -> None:
    stop = params.get("stop")
    at = expected.text.find(stop) if stop else -1
    count = len(found.token_ids)
    assert found.token_ids == expected.token_ids[:count]
    if at >= 0:
        assert (found.text, found.finish_reason) == (expected.text[:at], "stop")
    else:
        assert (found.text, found.finish_reason) == (expected.text, "length")
        assert count == NEW
    if params.get("logprobs"):
        assert found.logprobs is not None
        assert expected.logprobs is not None
        near(found.logprobs, expected.logprobs[:count])


def _same_prompt(output: RequestOutput, case: Case, params: dict[str, Any]) -> None:
    if "prompt_logprobs" in params:
        assert output.prompt_logprobs is not None
        near(output.prompt_logprobs, case.prompt_logprobs)


def near(
    found: Sequence[PositionLogprobs | None], expected: Sequence[PositionLogprobs | None]
) -> None:
    for one, other in zip(found, expected, strict=True):
        if one is None or other is None:
            assert one is other
            continue
        values = {token: entry.logprob for token, entry in other.items()}
        assert {token: entry.logprob for token, entry in one.items()} == pytest.approx(
            values, abs=LOGPROB_TOLERANCE
        )
