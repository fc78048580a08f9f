"""The tokenizer of a checkpoint folder: `tokenizer.json` and the small files beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from penstock.errors import InvalidFieldError, TokenizerError
from penstock.text.decoder import Decoder, alphabet_bytes, byte_of, compile_decoder

NAMED_TOKENS = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
_MARK = "\N{LOWER ONE EIGHTH BLOCK}"
"""sentencepiece's stand-in for a space"""


class Tokenizer:
    """Text to ids and back. Thread-safe: `encode` may run in a pool (it releases the GIL).

    special_tokens: by name (`bos_token` …), as chat templates want them.
    chat_templates: by name; `default` and, for requests with tools, `tool_use` have a meaning.
    eos_ids: ids that end an answer: those of the folder's generation_config.json and `eos_token`'s
    (fine-tunes exist that change only one of the two).
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        special_tokens: dict[str, str] | None = None,
        chat_templates: dict[str, str] | None = None,
        eos_ids: Iterable[int] = (),
    ) -> None:
        self._backend = backend
        backend.no_truncation()
        backend.no_padding()
        self.special_tokens = dict(special_tokens or {})
        self.chat_templates = dict(chat_templates or {})
        self.vocab_size: int = backend.get_vocab_size(with_added_tokens=True)
        self.bos_id = self._named_id("bos_token")
        eos_id = self._named_id("eos_token")
        self.eos_ids = tuple(dict.fromkeys([*eos_ids, *([] if eos_id is None else [eos_id])]))
        added = backend.get_added_tokens_decoder()
        self._added = {token_id: token.content for token_id, token in added.items()}
        self._special = {token.content for token in added.values() if token.special}
        spec = json.loads(backend.to_str())["decoder"]
        self._new_decoder = compile_decoder(spec)
        self._byte_level = '"ByteLevel"' in json.dumps(spec)

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Read the tokenizer of a checkpoint folder.

        Raises TokenizerError when there is none, when it is only in sentencepiece's form, and when
        its files are damaged or contradict each other.
        """
        try:
            return cls._load(folder)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise TokenizerError(
                f"The tokenizer files in {folder} have an unexpected form: {error!r}.",
                cure="Take all of them from the same revision of the model.",
            ) from error

    @classmethod
    def _load(cls, folder: Path) -> Tokenizer:
        config = read_json(folder / "tokenizer_config.json")
        names = {**read_json(folder / "special_tokens_map.json"), **config}
        backend = _read_backend(folder)
        special = {name: content for name in NAMED_TOKENS if (content := _content(names.get(name)))}
        _add_tokens(backend, config, special, folder)
        ends = read_json(folder / "generation_config.json").get("eos_token_id")
        return cls(
            backend,
            special_tokens=special,
            chat_templates=_read_templates(folder, config),
            eos_ids=ends if isinstance(ends, list) else [] if ends is None else [ends],
        )

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Ids of `text`. Special tokens written out in the text are recognised.

        add_special_tokens adds what tokenizer.json puts around a text (BOS, as a rule), but never
        a second BOS. Raises InvalidFieldError for text that is not valid Unicode.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidFieldError(
                f"The text is not valid Unicode: a lone surrogate at character {error.start}.",
                cure="Send text whose surrogates come in pairs.",
            ) from None
        ids: list[int] = self._backend.encode(text, add_special_tokens=add_special_tokens).ids
        if add_special_tokens and self.bos_id is not None and ids[:2] == [self.bos_id] * 2:
            del ids[0]
        return ids

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        """Text of `ids`; those without a token are passed over."""
        return str(self._backend.decode(ids, skip_special_tokens=skip_special_tokens))

    def new_decoder(self) -> Decoder:
        """A fresh incremental twin of `decode`; feed it `id_to_token` of each id."""
        return self._new_decoder()

    def id_to_token(self, token_id: int) -> str | None:
        """The vocabulary's entry, or None: models may have more ids than the tokenizer."""
        token: str | None = self._backend.id_to_token(token_id)
        return token

    def token_to_id(self, token: str) -> int | None:
        token_id: int | None = self._backend.token_to_id(token)
        return token_id

    @property
    def named(self) -> dict[str, int]:
        """Ids of the tokens that no other tokens spell for a grammar: special ones, and added ones
        of the form <…>."""
        found = {content: token_id for token_id, content in self._added.items()}
        return {
            text: token_id
            for text, token_id in found.items()
            if text in self._special or (text[:1] == "<" and text[-1:] == ">")
        }

    def is_special(self, token: str) -> bool:
        """Whether `decode` leaves this token out when it skips special tokens."""
        return token in self._special

    def token_bytes(self, token_id: int) -> bytes:
        """The UTF-8 bytes that this token stands for in the middle of a text: maybe a part of a
        character; a special token stands for its own name; empty for an id without a token."""
        token = self.id_to_token(token_id)
        if token is None:
            return b""
        if token_id in self._added:
            return token.encode()
        if self._byte_level:
            return alphabet_bytes(token)
        byte = byte_of(token)
        return token.replace(_MARK, " ").encode() if byte is None else bytes([byte])

    def _named_id(self, name: str) -> int | None:
        content = self.special_tokens.get(name)
        return None if content is None else self.token_to_id(content)


def _read_backend(folder: Path) -> tokenizers.Tokenizer:
    path = folder / "tokenizer.json"
    if not path.is_file():
        if (folder / "tokenizer.model").is_file():
            raise TokenizerError(
                f"{folder} has only a sentencepiece tokenizer.model.",
                cure="Convert it once with transformers (and sentencepiece, protobuf):"
                " AutoTokenizer.from_pretrained(folder).save_pretrained(folder).",
            )
        raise TokenizerError(
            f"{folder} has no tokenizer.json.",
            cure="Copy it from the model's source, or name a folder that has one by --tokenizer.",
        )
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise TokenizerError(
            f"{path} cannot be read: {error}.", cure="Download it again."
        ) from None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; empty when there is no such file. Raises TokenizerError."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        message = f"{path} is not valid JSON: {error}."
        raise TokenizerError(message, cure="Download it again.") from None
    if not isinstance(data, dict):
        raise TokenizerError(f"{path} must hold an object.", cure="Download it again.")
    return data


def _content(entry: Any) -> str | None:
    """A special token as text: config files hold a string or an object with `content`."""
    if isinstance(entry, dict):
        entry = entry.get("content")
    return entry if isinstance(entry, str) else None


def _add_tokens(
    backend: tokenizers.Tokenizer, config: dict[str, Any], special: dict[str, str], folder: Path
) -> None:
    """Tokens that only tokenizer_config.json knows, and the `special` mark of the named ones."""
    listed = config.get("added_tokens_decoder") or {}
    for key in sorted(listed, key=int):
        entry = listed[key]
        if backend.token_to_id(entry["content"]) is None:
            flags = {k: bool(entry.get(k)) for k in ("lstrip", "rstrip", "normalized", "special")}
            flags["single_word"] = bool(entry.get("single_word"))
            backend.add_tokens([AddedToken(entry["content"], **flags)])
        if backend.token_to_id(entry["content"]) != int(key):
            raise TokenizerError(
                f"{folder}: tokenizer_config.json gives {entry['content']!r} the id {key},"
                f" tokenizer.json {backend.token_to_id(entry['content'])}.",
                cure="Take both files from the same revision of the model.",
            )
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    contents = [*special.values(), *(_content(e) for e in _values(extra))]
    known = backend.get_added_tokens_decoder().values()
    marked = {token.content for token in known if token.special}
    for content in contents:
        if content and content not in marked and backend.token_to_id(content) is not None:
            backend.add_special_tokens([AddedToken(content, special=True, normalized=False)])


def _values(entries: Any) -> list[Any]:
    return list(entries.values()) if isinstance(entries, dict) else list(entries)


def _read_templates(folder: Path, config: dict[str, Any]) -> dict[str, str]:
    """Chat templates by name; where there are files of their own, only those."""
    files = {path.stem: path for path in (folder / "additional_chat_templates").glob("*.jinja")}
    if (folder / "chat_template.jinja").is_file():
        files["default"] = folder / "chat_template.jinja"
    if files:
        return {name: path.read_text(encoding="utf-8") for name, path in files.items()}
    entry = config.get("chat_template")
    if isinstance(entry, list):
        return {part["name"]: part["template"] for part in entry}
    if isinstance(entry, dict):
        return dict(entry)
    return {} if entry is None else {"default": str(entry)}
