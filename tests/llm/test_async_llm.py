from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock.config import Config, ModelConfig
from penstock.core.request import FinishReason
from penstock.errors import ContextLengthError, InvalidFieldError, TemplateError, TokenizerError
from penstock.llm import AsyncLLM, SamplingParams
from tests import vocabularies as made
from tests.llm.fake_client import FakeClient, llm_over, saying

TOKENIZER = made.byte_level()
CHAT: list[Any] = [{"role": "user", "content": "Hello"}]


def fake(text: str = "wood") -> FakeClient:
    return FakeClient(saying(TOKENIZER, text))


async def test_ids_as_a_prompt() -> None:
    client = fake()
    output = await (await llm_over(client, TOKENIZER).generate([5, 6])).result()
    assert (output.prompt, output.prompt_token_ids) == (None, [5, 6])
    assert client.submissions[0].prompt == [5, 6]


async def test_what_is_submitted() -> None:
    client = fake()
    model = llm_over(client, TOKENIZER)
    options = {"priority": -1, "deadline_s": 5.0, "cache_salt": "s"}
    first = await model.generate("Once", SamplingParams(max_tokens=4), **options)
    (submission,) = client.submissions
    assert submission.id == first.request_id
    assert (submission.priority, submission.deadline_s, submission.cache_salt) == (-1, 5.0, "s")
    assert submission.sampling.max_tokens == 4
    assert submission.sampling.stop_ids == (2,), "the engine's and the tokenizer's, once"
    assert submission.sampling.seed == first.seed == 77
    assert submission.group == ""
    second = await model.generate("Once", SamplingParams(seed=3), default_max_tokens=16)
    assert second.request_id != first.request_id
    assert (client.submissions[1].sampling.seed, second.seed) == (3, 3)
    assert client.submissions[1].sampling.max_tokens == 16


async def test_the_tokenizers_own_end_counts_too() -> None:
    client = fake()
    client.info.eos_ids = (7,)
    model = llm_over(client, TOKENIZER)
    assert model.eos_ids == (7, TOKENIZER.token_to_id("<|im_end|>"))


async def test_chat_equals_render_and_generate() -> None:
    client = fake()
    model = llm_over(client, TOKENIZER)
    text, ids = await model.render(CHAT)
    assert text == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    assert TOKENIZER.decode(ids, False) == text
    output = await (await model.chat(CHAT)).result()
    assert (output.prompt, output.prompt_token_ids) == (text, ids)
    template = {"add_generation_prompt": False}
    output = await (await model.chat(CHAT, template=template, request_id="c")).result()
    assert output.request_id == "c"
    assert output.prompt == "<|im_start|>user\nHello<|im_end|>\n"


async def test_a_chat_has_one_bos() -> None:
    tokenizer = made.sentencepiece()
    tokenizer.chat_templates["default"] = "{{ bos_token }}{{ messages[0].content }}"
    client = FakeClient(saying(tokenizer, "a"))
    model = llm_over(client, tokenizer)
    assert (await (await model.chat(CHAT)).result()).prompt_token_ids.count(1) == 1
    assert (await model.tokenize("<s>ab")).count(1) == 1
    assert (await model.generate("ab")).prompt_token_ids.count(1) == 1
    assert (await model.generate("ab", add_special_tokens=False)).prompt_token_ids.count(1) == 0


async def test_tokenize_and_detokenize() -> None:
    model = llm_over(fake(), TOKENIZER)
    ids = await model.tokenize("Hello<|im_end|>")
    assert await model.detokenize(ids) == "Hello<|im_end|>"
    assert await model.detokenize(ids, skip_special_tokens=True) == "Hello"


@pytest.mark.parametrize(
    "prompt", ["", [], [600], [-1], [2**70], ["a"], [True], [1.0], None, {"a": 1}, "a\ud800"]
)
async def test_bad_prompts(prompt: Any) -> None:
    client = fake()
    with pytest.raises(InvalidFieldError):
        await llm_over(client, TOKENIZER).generate(prompt)
    assert client.submissions == []


async def test_a_prompt_over_the_context() -> None:
    client = fake()
    model = llm_over(client, TOKENIZER)
    for prompt in ([5] * 100, "Hello " * 200):
        with pytest.raises(ContextLengthError, match=r"has \d+ tokens; the context holds 100"):
            await model.generate(prompt)
    assert client.submissions == []
    await model.generate([5] * 99)
    assert client.submissions[0].sampling.max_tokens == 1


async def test_bad_params_and_bad_words() -> None:
    client = fake()
    model = llm_over(client, TOKENIZER)
    with pytest.raises(InvalidFieldError, match="stop_token_ids must be ids below 600"):
        await model.generate("Once", SamplingParams(stop_token_ids=[600]))
    await model.generate("Once", SamplingParams(bad_words=["fox"]))
    assert len(client.submissions[0].sampling.bad_words) == 2


async def test_defaults_of_the_model() -> None:
    client = fake()
    defaults = {"temperature": 0.5, "top_p": 0.9}
    model = AsyncLLM(client, client.info, TOKENIZER, defaults=defaults)
    assert model.params(top_p=0.1) == SamplingParams(temperature=0.5, top_p=0.1)
    await model.generate("Once")
    assert client.submissions[0].sampling.temperature == 0.5


async def test_abort_and_close() -> None:
    client = fake()
    model = llm_over(client, TOKENIZER)
    model.abort("a")
    model.abort("b", n=2)
    assert client.aborts == [(name, FinishReason.ABORT) for name in ("a", "b-0", "b-1")]
    await model.close()
    assert client.closed


def config(folder: Path, **options: Any) -> Config:
    return Config(model=ModelConfig(model=str(folder), **options))


async def test_start_reads_the_folder(tmp_path: Path) -> None:
    folder = made.write_folder(
        tmp_path / "m",
        made.byte_level_json(),
        tokenizer_config={"eos_token": "<|im_end|>", "chat_template": made.CHAT_TEMPLATE},
        generation_config={"temperature": 0.25},
    )
    model = await AsyncLLM.start(config(folder, seed=5), fake())
    assert model.params().temperature == 0.25
    assert (await model.render(CHAT))[0].startswith("<|im_start|>user")
    seeds = [(await model.generate("Once")).seed for _ in range(2)]
    again = await AsyncLLM.start(config(folder, seed=5), fake())
    assert seeds == [(await again.generate("Once")).seed for _ in range(2)]
    assert seeds[0] != seeds[1]
    template = tmp_path / "t.jinja"
    template.write_text("T")
    model = await AsyncLLM.start(
        config(folder, chat_template=str(template), generation_config="none"), fake()
    )
    assert (await model.render(CHAT))[0] == "T"
    assert model.params() == SamplingParams()
    model = await AsyncLLM.start(config(folder, chat_template="{{ 'x' }}"), fake())
    assert (await model.render(CHAT))[0] == "x"


async def test_start_takes_the_tokenizer_from_elsewhere(tmp_path: Path) -> None:
    other = made.write_folder(tmp_path / "t", made.byte_level_json())
    (tmp_path / "m").mkdir()
    model = await AsyncLLM.start(config(tmp_path / "m", tokenizer=str(other)), fake())
    assert model.tokenizer.vocab_size == TOKENIZER.vocab_size


async def test_start_fails_and_closes_the_client(tmp_path: Path) -> None:
    client = fake()
    with pytest.raises(TokenizerError, match=r"no tokenizer\.json"):
        await AsyncLLM.start(config(tmp_path), client)
    assert client.closed
    made.write_folder(tmp_path, made.byte_level_json())
    for template, message in (("gone.jinja", "cannot be read"), ("{% if %}", "not valid")):
        with pytest.raises(TemplateError, match=message):
            await AsyncLLM.start(config(tmp_path, chat_template=template), fake())
