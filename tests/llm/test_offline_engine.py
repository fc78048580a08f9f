"""The whole way in one process: text in, the real engine on random weights, text out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from penstock.errors import TokenizerError
from penstock.llm import LLM, SamplingParams
from tests import vocabularies as made

GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
PROMPTS = ["Once upon a time", "The fox said", "wood"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        eos_token_id=2,
        bos_token_id=None,
    )
    path = tmp_path_factory.mktemp("llama")
    LlamaForCausalLM(config).save_pretrained(path)
    names = {"eos_token": "<|im_end|>", "chat_template": made.CHAT_TEMPLATE}
    return made.write_folder(path, made.byte_level_json(), tokenizer_config=names)


@pytest.fixture(scope="module")
def llm(folder: Path) -> Iterator[LLM]:
    options = {"dtype": "float32", "num_threads": 1, "kv_cache_memory_bytes": 2**20}
    with LLM(str(folder), **options) as llm:
        yield llm


def test_greedy_equals_transformers(llm: LLM, folder: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(folder)
    for output in llm.generate(PROMPTS, GREEDY, use_tqdm=False):
        ids = torch.tensor([output.prompt_token_ids])
        wanted = model.generate(ids, max_new_tokens=12, do_sample=False, eos_token_id=None)
        (one,) = output.outputs
        assert one.token_ids == wanted[0, ids.shape[1] :].tolist()
        assert one.text == llm.llm.tokenizer.decode(one.token_ids)
        assert one.finish_reason == "length"


def test_offline_no_prompt_is_held_back_for_streams(llm: LLM) -> None:
    assert any(note == "a step computes up to 256 tokens" for note in llm.llm.info.notes)


def test_a_stop_string_ends_the_engines_work(llm: LLM) -> None:
    (whole,) = llm.generate("Once upon", SamplingParams(seed=1, max_tokens=60), use_tqdm=False)
    text = whole.outputs[0].text
    stop = text[10:13]
    params = SamplingParams(seed=1, max_tokens=60, stop=stop)
    (output,) = llm.generate("Once upon", params, use_tqdm=False)
    (one,) = output.outputs
    assert one.text == text[: text.find(stop)]
    assert (one.finish_reason, one.stop_reason) == ("stop", stop)
    count = len(one.token_ids)
    assert one.token_ids == whole.outputs[0].token_ids[:count]
    assert count < len(whole.outputs[0].token_ids)


def test_choices_and_seeds(llm: LLM) -> None:
    params = SamplingParams(n=3, max_tokens=8, ignore_eos=True)
    (first,) = llm.chat([{"role": "user", "content": "Hi"}], params, use_tqdm=False)
    assert len({tuple(one.token_ids) for one in first.outputs}) == 3
    assert first.prompt == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    again = SamplingParams(n=3, max_tokens=8, ignore_eos=True, seed=first.seed)
    (second,) = llm.generate(first.prompt, again, use_tqdm=False)
    assert [one.token_ids for one in second.outputs] == [one.token_ids for one in first.outputs]


def test_logprobs_belong_to_the_tokens(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=4, logprobs=2, prompt_logprobs=0)
    (output,) = llm.generate(PROMPTS[0], params, use_tqdm=False)
    (one,) = output.outputs
    assert one.logprobs is not None
    for token_id, position in zip(one.token_ids, one.logprobs, strict=True):
        assert next(iter(position)) == token_id
        assert position[token_id].rank == 1
    assert output.prompt_logprobs is not None
    assert output.prompt_logprobs[0] is None
    assert [next(iter(p)) for p in output.prompt_logprobs if p] == output.prompt_token_ids[1:]


def test_nothing_is_left_behind(llm: LLM) -> None:
    llm.generate(PROMPTS * 10, SamplingParams(max_tokens=5, stop=["e"]), use_tqdm=False)
    llm.generate("a", GREEDY, use_tqdm=False)  # behind the aborts in the engine's inbox
    stats = llm.llm.client.stats()
    assert (stats.running, stats.waiting, stats.leaked_blocks) == (0, 0, 0)


def test_a_folder_without_tokenizer(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    with pytest.raises(TokenizerError, match=r"no tokenizer\.json"):
        LLM(str(tmp_path), dtype="float32", num_threads=1, kv_cache_memory_bytes=2**20)
