from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from penstock.config import Config
from penstock.core.request import Submission
from penstock.engine.client import Delta
from penstock.errors import ConfigError, ContextLengthError, InvalidFieldError
from penstock.llm import LLM, AsyncLLM, SamplingParams
from penstock.llm.offline import config_of
from tests import vocabularies as made
from tests.llm.fake_client import FakeClient, deltas, llm_over

TOKENIZER = made.byte_level()


def echo(submission: Submission) -> list[Delta]:
    """Longer prompts take longer, so that the order of the ends is not that of the prompts."""
    return deltas(submission.prompt[::-1] * (submission.sampling.max_tokens or 1))


def offline(client: FakeClient | None = None) -> LLM:
    client = client or FakeClient(echo)

    async def start(config: Config) -> AsyncLLM:
        return llm_over(client, TOKENIZER)

    return LLM(start=start)


ONCE = SamplingParams(max_tokens=1)


def test_outputs_come_in_the_order_of_the_prompts() -> None:
    prompts = [[5 + i] * (10 - i % 10) for i in range(90)]
    with offline() as llm:
        outputs = llm.generate(prompts, ONCE, use_tqdm=False)
    assert [output.prompt_token_ids for output in outputs] == prompts
    assert [output.outputs[0].token_ids for output in outputs] == [p[::-1] for p in prompts]
    assert len({output.request_id for output in outputs}) == 90


def test_single_prompts() -> None:
    with offline() as llm:
        assert len(llm.generate("Once upon", ONCE, use_tqdm=False)) == 1
        assert len(llm.generate([5, 6], ONCE, use_tqdm=False)) == 1
        assert llm.generate([], use_tqdm=False) == []


def test_params_of_the_model_when_none_are_given() -> None:
    client = FakeClient(echo)
    with offline(client) as llm:
        llm.llm.defaults["temperature"] = 0.25
        assert llm.default_params() == SamplingParams(temperature=0.25)
        llm.generate("a", use_tqdm=False)
        llm.generate("a", SamplingParams(), use_tqdm=False)
    assert [s.sampling.temperature for s in client.submissions] == [0.25, 1.0]


def test_params_for_each_prompt() -> None:
    each = [SamplingParams(max_tokens=i) for i in (1, 3)]
    with offline() as llm:
        outputs = llm.generate(["a", "a"], each, use_tqdm=False)
        assert [len(output.outputs[0].token_ids) for output in outputs] == [1, 3]
        with pytest.raises(InvalidFieldError, match="2 params for 1 prompts"):
            llm.generate(["a"], each, use_tqdm=False)


def test_chat() -> None:
    chat: list[Any] = [{"role": "user", "content": "Hi"}]
    with offline() as llm:
        (one,) = llm.chat(chat, ONCE, use_tqdm=False)
        two = llm.chat([chat, chat], ONCE, use_tqdm=False, add_generation_prompt=False)
    assert one.prompt == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert [output.prompt for output in two] == ["<|im_start|>user\nHi<|im_end|>\n"] * 2


def test_the_first_error_ends_the_call_and_the_rest() -> None:
    client = FakeClient(lambda submission: [Delta(tokens=[5])])  # never ends
    llm = offline(client)
    with pytest.raises(ContextLengthError):
        llm.generate([[5], [6], [7] * 500], use_tqdm=False)
    assert len(client.aborts) == 2
    llm.close()
    assert client.closed
    llm.close()


def test_the_bar_counts_requests(capsys: pytest.CaptureFixture[str]) -> None:
    with offline() as llm:
        llm.generate(["a", "b"], ONCE)
    assert "2/2" in capsys.readouterr().out


def test_options_by_name() -> None:
    config = config_of(model="x", max_model_len=7, max_num_seqs=3)
    assert (config.model.model, config.model.max_model_len) == ("x", 7)
    assert config.engine.max_num_seqs == 3
    with pytest.raises(ConfigError, match=r"no option max_modell_len\. Did you mean max_model_len"):
        config_of(max_modell_len=7)
    with pytest.raises(ConfigError, match="no option qqq"):
        config_of(qqq=1)
    with pytest.raises(ConfigError):
        config_of(max_num_seqs=0)


def test_a_start_that_fails_leaves_no_thread() -> None:
    import threading

    async def start(config: Config) -> AsyncLLM:
        raise ConfigError("No.")

    before = threading.active_count()
    with pytest.raises(ConfigError, match="No"):
        LLM(start=partial(start))
    assert threading.active_count() == before
