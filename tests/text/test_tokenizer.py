from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from penstock.errors import InvalidFieldError, TokenizerError
from penstock.text.tokenizer import Tokenizer
from tests import vocabularies as made
from tests.vocabularies import write_folder

SENTENCEPIECE = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": "<s>",
    "eos_token": {"__type": "AddedToken", "content": "</s>", "special": True},
    "unk_token": "<unk>",
}


TEXTS = (*made.TEXTS, " a ab  b", "", "<s> a", "a</s>b [note]<|im_end|>")


def load(folder: Path, **files: Any) -> Tokenizer:
    return Tokenizer.load(write_folder(folder, made.sentencepiece_json(), **files))


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (made.byte_level_json(), {"eos_token": "<|im_end|>"}),
        (made.byte_level_json(), {"bos_token": "<|endoftext|>", "add_bos_token": True}),
        (made.sentencepiece_json(), SENTENCEPIECE),
        (made.sentencepiece_json(), {**SENTENCEPIECE, "add_bos_token": False}),
        (
            made.sentencepiece_json(),
            {**SENTENCEPIECE, "add_bos_token": True, "add_eos_token": True},
        ),
        (made.metaspace_json("first"), SENTENCEPIECE),
    ],
)
def test_equals_transformers(tmp_path: Path, kind: str, config: dict[str, Any]) -> None:
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **config}
    folder = write_folder(tmp_path, kind, tokenizer_config=config)
    ours, theirs = Tokenizer.load(folder), AutoTokenizer.from_pretrained(folder)
    assert ours.bos_id == theirs.bos_token_id
    for text in TEXTS:
        wanted = theirs(text)["input_ids"]
        if wanted[:2] == [ours.bos_id] * 2:
            wanted = wanted[1:]  # the one difference: never two
        assert ours.encode(text) == wanted
        assert ours.encode(text, False) == theirs(text, add_special_tokens=False)["input_ids"]
        for skip in (False, True):
            assert ours.decode(wanted, skip) == theirs.decode(wanted, skip_special_tokens=skip)


def test_one_bos(tmp_path: Path) -> None:
    tokenizer = load(tmp_path, tokenizer_config=SENTENCEPIECE)
    assert tokenizer.bos_id == 1
    assert tokenizer.encode("a").count(1) == 1
    assert tokenizer.encode("<s>a").count(1) == 1
    assert tokenizer.encode("<s>a", add_special_tokens=False).count(1) == 1
    assert tokenizer.encode("a", add_special_tokens=False).count(1) == 0


def test_special_tokens_and_ends(tmp_path: Path) -> None:
    tokenizer = load(tmp_path / "1", tokenizer_config=SENTENCEPIECE)
    assert tokenizer.special_tokens == {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    assert tokenizer.eos_ids == (2,)
    tokenizer = load(tmp_path / "2", special_tokens_map={"bos_token": "<s>"})
    assert tokenizer.special_tokens == {"bos_token": "<s>"}
    assert tokenizer.eos_ids == ()
    assert load(tmp_path / "3", generation_config={"eos_token_id": [5, 7]}).eos_ids == (5, 7)
    assert load(tmp_path / "4", generation_config={"eos_token_id": 9}).eos_ids == (9,)
    both = {"generation_config": {"eos_token_id": [5, 2]}, "tokenizer_config": SENTENCEPIECE}
    assert load(tmp_path / "5", **both).eos_ids == (5, 2)
    both["generation_config"] = {"eos_token_id": 5}
    assert load(tmp_path / "6", **both).eos_ids == (5, 2)


def test_tokens_that_only_the_config_knows(tmp_path: Path) -> None:
    size = made.sentencepiece().vocab_size
    extra = {str(size): {"content": "<tool>", "special": True}, "2": {"content": "</s>"}}
    tokenizer = load(tmp_path, tokenizer_config={"added_tokens_decoder": extra})
    assert tokenizer.encode("a<tool>", False)[-1] == size
    assert tokenizer.vocab_size == size + 1
    assert tokenizer.is_special("<tool>")


def test_named_tokens_are_special(tmp_path: Path) -> None:
    """Checkpoints exist whose tokenizer.json forgets to mark EOS as special."""
    data = json.loads(made.byte_level_json())
    for token in data["added_tokens"]:
        token["special"] = False
    config = {"eos_token": "<|im_end|>", "extra_special_tokens": {"start": "<|im_start|>"}}
    folder = write_folder(tmp_path, json.dumps(data), tokenizer_config=config)
    tokenizer = Tokenizer.load(folder)
    ids = tokenizer.encode("<|im_start|>a<|im_end|><|endoftext|>")
    assert tokenizer.decode(ids) == "a<|endoftext|>"


def test_chat_templates(tmp_path: Path) -> None:
    config: dict[str, Any] = {
        "chat_template": [{"name": "default", "template": "d"}, {"name": "rag", "template": "r"}]
    }
    assert load(tmp_path / "1").chat_templates == {}
    assert load(tmp_path / "5", tokenizer_config=config).chat_templates == {
        "default": "d",
        "rag": "r",
    }
    assert load(tmp_path / "2", tokenizer_config={"chat_template": "x"}).chat_templates == {
        "default": "x"
    }
    folder = tmp_path / "3"
    (folder / "additional_chat_templates").mkdir(parents=True)
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("t")
    (folder / "chat_template.jinja").write_text("ü", encoding="utf-8")
    assert load(folder, tokenizer_config=config).chat_templates == {"default": "ü", "tool_use": "t"}
    config["chat_template"] = {"default": "y"}
    assert load(tmp_path / "4", tokenizer_config=config).chat_templates == {"default": "y"}


def test_truncation_and_padding_of_the_file_are_off() -> None:
    """Some published tokenizer.json still hold the truncation of a training run."""
    backend = made.tokenizers.Tokenizer.from_str(made.byte_level_json())
    backend.enable_truncation(2)
    backend.enable_padding(length=64)
    assert len(Tokenizer(backend).encode("Hello there, wood")) not in (2, 64)


@pytest.mark.parametrize("text", ["\ud800", "a\udfff b"])
def test_lone_surrogates_are_refused(text: str) -> None:
    with pytest.raises(InvalidFieldError, match="lone surrogate at character"):
        made.byte_level().encode(text)


def test_token_bytes() -> None:
    tokenizer = made.byte_level()
    ids = tokenizer.encode("né 👋<|im_end|>[note]")
    assert b"".join(map(tokenizer.token_bytes, ids)).decode() == "né 👋<|im_end|>[note]"
    tokenizer = made.sentencepiece()
    ids = tokenizer.encode("a é👋", False)
    assert b"".join(map(tokenizer.token_bytes, ids)).decode() == " a é👋"
    assert tokenizer.token_bytes(10**6) == b""
    assert tokenizer.id_to_token(10**6) is None


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"has no tokenizer.json.*--tokenizer"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"\x0a")
    with pytest.raises(TokenizerError, match=r"only a sentencepiece.*save_pretrained"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("contents", ["", "{", '{"model": 3}', "[]"])
def test_corrupt_tokenizer_json(tmp_path: Path, contents: str) -> None:
    write_folder(tmp_path, contents)
    with pytest.raises(TokenizerError, match="cannot be read"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "must hold an object"),
        ('{"added_tokens_decoder": {"x": {"content": "a"}}}', "unexpected form"),
        ('{"added_tokens_decoder": {"1": {}}}', "unexpected form"),
        ('{"added_tokens_decoder": {"9000": {"content": "<new>"}}}', "gives '<new>' the id 9000"),
        ('{"chat_template": [3]}', "unexpected form"),
    ],
)
def test_corrupt_config(tmp_path: Path, config: str, message: str) -> None:
    write_folder(tmp_path, made.byte_level_json())
    (tmp_path / "tokenizer_config.json").write_text(config)
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.load(tmp_path)
