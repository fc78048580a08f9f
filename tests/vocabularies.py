"""Small tokenizers of the kinds that checkpoints bring, made in memory, and folders of them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import (
    AddedToken,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from penstock.text.tokenizer import Tokenizer

TEXTS = (
    "Once upon a time there was a little fox who lived in the wood.",
    "The fox said: “Hello, wood!” and the wood said nothing at all.",
    "def add(a, b):\n    return a + b\n\n\tprint(add(1, 22))",
    "Grüße aus Köln! Ça va? Привет, мир. 你好，世界。こんにちは 👋🌍 👩‍👩‍👧‍👦 é",
)
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
BYTE_LEVEL_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
SENTENCEPIECE_SPECIAL = ("<unk>", "<s>", "</s>")
PIECES = ("▁", "a", "b", "c", "é", "▁a", "▁b", "ab", "▁ab", "▁▁", "▁▁▁▁", "▁ab▁", "世", "<0x0A>x")


@cache
def byte_level_json() -> str:
    """GPT-2's kind: byte-level BPE, no BOS."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=list(BYTE_LEVEL_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS * 4, trainer)
    backend.add_tokens([AddedToken("[note]", special=False)])
    return str(backend.to_str())


@cache
def sentencepiece_json(strip: bool = True) -> str:
    """Llama 2's kind: BPE over `▁` with byte fallback and BOS; without `strip` Gemma's."""
    special = list(SENTENCEPIECE_SPECIAL)
    alphabet = [f"<0x{byte:02X}>" for byte in range(256)]
    vocab = {token: i for i, token in enumerate(special + alphabet + list(PIECES))}
    merges = [("▁", "a"), ("▁", "b"), ("a", "b"), ("▁a", "b"), ("▁", "▁"), ("▁▁", "▁▁")]
    backend = tokenizers.Tokenizer(
        models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    parts = [normalizers.Prepend("▁")] if strip else []
    backend.normalizer = normalizers.Sequence([*parts, normalizers.Replace(" ", "▁")])
    chain = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*chain, *([decoders.Strip(" ", 1, 0)] if strip else [])])
    _special_with_bos(backend, special)
    return str(backend.to_str())


@cache
def metaspace_json(prepend_scheme: str = "always") -> str:
    """The newer sentencepiece kind: Metaspace, here with byte fallback."""
    special = list(SENTENCEPIECE_SPECIAL)
    alphabet = [f"<0x{byte:02X}>" for byte in range(256)]
    vocab = [(token, 0.0) for token in special + alphabet]
    vocab += [(piece, -float(i)) for i, piece in enumerate(PIECES[:-1], 1)]
    backend = tokenizers.Tokenizer(models.Unigram(vocab, unk_id=0, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend_scheme)
    backend.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme=prepend_scheme)]
    )
    _special_with_bos(backend, special)
    return str(backend.to_str())


@cache
def words_json() -> str:
    """Whole words and no decoder at all."""
    words = ["<unk>", "once", "upon", "a", "time"]
    backend = tokenizers.Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return str(backend.to_str())


def _special_with_bos(backend: tokenizers.Tokenizer, special: list[str]) -> None:
    backend.add_special_tokens(special)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair=None, special_tokens=[("<s>", 1)]
    )


def byte_level() -> Tokenizer:
    return Tokenizer(
        tokenizers.Tokenizer.from_str(byte_level_json()),
        special_tokens={"eos_token": "<|im_end|>"},
        chat_templates={"default": CHAT_TEMPLATE},
    )


def sentencepiece(strip: bool = True) -> Tokenizer:
    return Tokenizer(
        tokenizers.Tokenizer.from_str(sentencepiece_json(strip)),
        special_tokens={"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    )


def metaspace(prepend_scheme: str = "always") -> Tokenizer:
    return Tokenizer(
        tokenizers.Tokenizer.from_str(metaspace_json(prepend_scheme)),
        special_tokens={"bos_token": "<s>", "eos_token": "</s>"},
    )


def words() -> Tokenizer:
    return Tokenizer(tokenizers.Tokenizer.from_str(words_json()))


def write_folder(folder: Path, tokenizer_json: str, **files: Any) -> Path:
    """A checkpoint folder's text part; files: name without `.json` -> contents."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
    for name, data in files.items():
        (folder / f"{name}.json").write_text(json.dumps(data), encoding="utf-8")
    return folder
