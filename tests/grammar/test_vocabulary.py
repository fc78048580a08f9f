"""The compiler takes each token for the bytes that the tokenizer gives it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock.engine.hub import DEMO
from penstock.errors import TokenizerError
from penstock.grammar.compiled import Vocabulary
from penstock.grammar.vocabulary import END, tokenizer_json
from penstock.text.tokenizer import Tokenizer
from tests import vocabularies as made


def check_bytes(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    size = tokenizer.vocab_size
    vocabulary = Vocabulary(*tokenizer_json(folder), size)
    for token in range(size):
        raw = tokenizer.token_bytes(token)
        if raw[:1] != b"\xff":  # in no text; the compiler marks special tokens by it
            assert vocabulary.token_bytes(token) == raw, token


def test_demo_model() -> None:
    check_bytes(DEMO)


@pytest.mark.parametrize(
    "text", [made.byte_level_json(), made.sentencepiece_json().replace("<0x0A>x", "x")]
)
def test_kinds_of_tokenizers(tmp_path: Path, text: str) -> None:
    check_bytes(made.write_folder(tmp_path, text))


def test_tokens_that_only_the_config_knows(tmp_path: Path) -> None:
    text = made.byte_level_json()
    size = Tokenizer.load(made.write_folder(tmp_path, text)).vocab_size
    entry = {"content": "[call]", "special": True}
    config = {"added_tokens_decoder": {str(size): entry}}
    folder = made.write_folder(tmp_path, text, tokenizer_config=config)
    check_bytes(folder)
    written, end = tokenizer_json(folder)
    assert end == size + 1
    added = {t["content"]: t for t in json.loads(written)["added_tokens"]}
    assert added[END]["id"] == end
    assert added["[call]"]["special"]


def test_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"no tokenizer\.json"):
        tokenizer_json(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(TokenizerError, match="not valid JSON"):
        tokenizer_json(tmp_path)
    (tmp_path / "tokenizer.json").write_text("[]")
    with pytest.raises(TokenizerError, match="must hold an object"):
        tokenizer_json(tmp_path)
