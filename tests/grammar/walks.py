"""Random walks through a compiled grammar: what a model with no sense of it might write."""

from __future__ import annotations

import random
from functools import cache

import numpy as np

import penstock.engine.hub as hub
from penstock.grammar.compiled import Bits, Compiled, Vocabulary
from penstock.grammar.vocabulary import tokenizer_json

SIZE = 4096


@cache
def vocabulary() -> Vocabulary:
    """The demo model's."""
    return Vocabulary(*tokenizer_json(hub.DEMO), SIZE)


@cache
def token_bytes() -> list[bytes]:
    return [vocabulary().token_bytes(token) for token in range(SIZE)]


def ids_of(bits: Bits) -> list[int]:
    return [int(i) for i in np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little"))]


def walk(compiled: Compiled, seed: int, most: int = 400) -> str | None:
    """A text by random allowed tokens, which turn towards an end after a while; None when it came
    to none within `most` tokens."""
    draw, matcher, text = random.Random(seed), compiled.matcher(), b""
    for step in range(most):
        bits, may_end = matcher.allowed()
        ids = ids_of(bits)
        if may_end and (not ids or draw.random() < 0.5):
            return text.decode()
        assert ids, "neither a token nor an end"
        closing = [i for i in ids if token_bytes()[i][:1] in b'"}],'] if step > 30 else []
        token = draw.choice(closing if closing and draw.random() < 0.7 else ids)
        text += token_bytes()[token]
        matcher.accept([token])
    return None
