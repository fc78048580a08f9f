from __future__ import annotations

from collections.abc import Callable

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models

from penstock.errors import TokenizerError
from penstock.text.decoder import BYTE_OF_CHAR, Decoder, byte_of, compile_decoder
from penstock.text.tokenizer import Tokenizer
from tests import vocabularies

KINDS: dict[str, Callable[[], Tokenizer]] = {
    "byte-level": vocabularies.byte_level,
    "llama": vocabularies.sentencepiece,
    "gemma": lambda: vocabularies.sentencepiece(strip=False),
    "metaspace": vocabularies.metaspace,
    "metaspace-never": lambda: vocabularies.metaspace("never"),
    "words": vocabularies.words,
}
MADE = {name: make() for name, make in KINDS.items()}


def decode(decoder: Decoder, tokens: list[str]) -> str:
    return "".join(decoder.feed(token) for token in tokens) + decoder.end()


@pytest.mark.parametrize("kind", MADE)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_equals_the_library_for_any_ids(kind: str, data: st.DataObject) -> None:
    tokenizer = MADE[kind]
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=24))
    tokens = [token for i in ids if (token := tokenizer.id_to_token(i)) is not None]
    assert decode(tokenizer.new_decoder(), tokens) == tokenizer.decode(ids, False)


BYTES = ["E2", "98", "83", "F0", "9F", "41", "C3", "ED", "A0", "80", "FF"]


@settings(max_examples=300, deadline=None)
@given(run=st.lists(st.sampled_from(BYTES), max_size=12))
@pytest.mark.parametrize("kind", ["llama", "metaspace"])
def test_equals_the_library_for_byte_runs(kind: str, run: list[str]) -> None:
    tokenizer = MADE[kind]
    tokens = ["▁a", *(f"<0x{byte}>" for byte in run), "b"]
    ids = [tokenizer.token_to_id(token) or 0 for token in tokens]
    assert decode(tokenizer.new_decoder(), tokens) == tokenizer.decode(ids)


@settings(max_examples=300, deadline=None)
@given(raw=st.binary(max_size=12))
def test_equals_the_library_for_raw_bytes(raw: bytes) -> None:
    """Python's and Rust's ideas of one invalid sequence are the same."""
    tokenizer = MADE["byte-level"]
    chars = {byte: char for char, byte in BYTE_OF_CHAR.items()}
    tokens = [chars[byte] for byte in raw]
    ids = [tokenizer.token_to_id(token) or 0 for token in tokens]
    assert decode(tokenizer.new_decoder(), tokens) == tokenizer.decode(ids)
    assert decode(tokenizer.new_decoder(), tokens) == raw.decode(errors="replace")


def test_text_comes_as_soon_as_it_is_certain() -> None:
    decoder = MADE["llama"].new_decoder()
    assert [decoder.feed(t) for t in ("▁a", "▁b", "<0xC3>", "<0xA9>")] == ["a", " b", "", ""]
    assert decoder.preview() == "é"
    assert decoder.feed("<0xC3>") == ""
    assert decoder.preview() == ""
    assert decoder.feed("c") == "\ufffd\ufffd\ufffdc"


def test_strip_before_fuse_works_on_each_token() -> None:
    backend = tokenizers.Tokenizer(models.WordLevel({"  a": 0, " b": 1}, unk_token=" b"))
    backend.decoder = decoders.Strip(" ", 1, 0)
    tokenizer = Tokenizer(backend)
    assert decode(tokenizer.new_decoder(), ["  a", " b"]) == tokenizer.decode([0, 1]) == " ab"


def test_strip_after_fuse_takes_spaces_from_several_tokens() -> None:
    backend = tokenizers.Tokenizer(models.WordLevel({" ": 0, "  b": 1}, unk_token=" "))
    backend.decoder = decoders.Sequence([decoders.Fuse(), decoders.Strip(" ", 3, 0)])
    tokenizer = Tokenizer(backend)
    tokens, ids = [" ", " ", "  b", " "], [0, 0, 1, 0]
    assert decode(tokenizer.new_decoder(), tokens) == tokenizer.decode(ids) == " b "


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "WordPiece", "prefix": "##", "cleanup": True},
        {"type": "Strip", "content": " ", "start": 0, "stop": 1},
        {
            "type": "Sequence",
            "decoders": [
                {"type": "Fuse"},
                {"type": "Replace", "pattern": {"String": "a"}, "content": "b"},
            ],
        },
    ],
)
def test_unknown_decoders_are_refused(spec: dict[str, object]) -> None:
    with pytest.raises(TokenizerError, match=r"is not supported.*Known are ByteLevel"):
        compile_decoder(spec)


def test_byte_of() -> None:
    assert byte_of("<0x0A>") == 10
    assert byte_of("<0x0A>x") is None
    assert byte_of("a") is None
