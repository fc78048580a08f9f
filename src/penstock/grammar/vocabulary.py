"""The tokenizer of a checkpoint as one JSON text, for a compiler of grammars that knows nothing of
the files around it.

`tokenizer.json` and, where it has tokens that only `tokenizer_config.json` knows, those added. The
engine reads it at the first request with a grammar; it never tokenizes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from penstock.errors import TokenizerError

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


END = "<|penstock-end|>"
"""A token that no model has: to the compiler, what says that a text may end."""


def tokenizer_json(folder: Path) -> tuple[str, int]:
    """The text, and the id of `END`, the first that the tokenizer has not.

    Raises TokenizerError when there is no tokenizer.json, or a file is damaged.
    """
    tokenizer = _read(folder / "tokenizer.json")
    added: list[dict[str, Any]] = tokenizer.setdefault("added_tokens", [])
    known = {entry["id"] for entry in added}
    try:
        listed = _read(folder / "tokenizer_config.json").get("added_tokens_decoder") or {}
    except FileNotFoundError:
        listed = {}
    for key in sorted(listed, key=int):
        if int(key) not in known:
            flags = {flag: bool(listed[key].get(flag)) for flag in _FLAGS}
            added.append({"id": int(key), "content": listed[key]["content"], **flags})
    end = 1 + max(_model_ids(tokenizer["model"]["vocab"]), *(entry["id"] for entry in added), -1)
    added.append({"id": end, "content": END, **dict.fromkeys(_FLAGS, False), "special": True})
    return json.dumps(tokenizer), end


def _model_ids(vocab: Any) -> int:
    """The greatest id: a vocabulary is an object from tokens to ids, or a list in their order."""
    return max(vocab.values(), default=-1) if isinstance(vocab, dict) else len(vocab) - 1


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if path.name != "tokenizer.json":
            raise
        raise TokenizerError(
            f"{path.parent} has no tokenizer.json, which structured output needs.",
            cure="Name a folder that has one by --tokenizer.",
        ) from None
    except ValueError as error:
        raise TokenizerError(
            f"{path} is not valid JSON: {error}.", cure="Download it again."
        ) from None
    if not isinstance(data, dict):
        raise TokenizerError(f"{path} must hold an object.", cure="Download it again.")
    return data
