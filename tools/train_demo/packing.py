"""Turns samples into packed rows of tokens of one length."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
from tokenizers import Tokenizer

Sample = list[tuple[str, float]]  # parts of text, each with its weight in the loss


def encode(tok: Tokenizer, samples: list[Sample]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Token ids and loss weights (in tenths) of each sample."""
    flat = [text for sample in samples for text, _ in sample]
    ids = iter(tok.encode_batch(flat, add_special_tokens=False))
    for sample in samples:
        parts = [(next(ids).ids, w) for _, w in sample]
        tokens = np.concatenate([np.array(p, dtype=np.uint16) for p, _ in parts])
        weights = np.concatenate([np.full(len(p), round(w * 10), np.uint8) for p, w in parts])
        yield tokens, weights


class Packer:
    """Packs samples into rows of one length; a long plain text is cut, others fit or wait."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.open: list[list[tuple[np.ndarray, np.ndarray]]] = []

    def add(self, tokens: np.ndarray, weights: np.ndarray) -> None:
        for at in range(0, len(tokens), self.length):
            piece = (tokens[at : at + self.length], weights[at : at + self.length])
            if len(piece[0]) > 8:
                self.place(piece)

    def place(self, piece: tuple[np.ndarray, np.ndarray]) -> None:
        """Into the open row that it fills best; the fullest row closes when 64 are open."""
        room = [self.length - sum(len(t) for t, _ in row) for row in self.open]
        fits = [i for i, r in enumerate(room) if r >= len(piece[0])]
        if fits:
            self.open[min(fits, key=lambda i: room[i])].append(piece)
        else:
            self.open.append([piece])
        if len(self.open) > 64:
            self.close(min(range(len(room)), key=lambda i: room[i]))

    def close(self, i: int) -> None:
        row = self.open.pop(i)
        out = [np.zeros(self.length, d) for d in (np.uint16, np.uint8, np.uint8)]
        at = 0
        for n, (tokens, weights) in enumerate(row):
            end = at + len(tokens)
            out[0][at:end], out[1][at:end], out[2][at:end] = tokens, weights, n + 1
            at = end
        self.rows.append((out[0], out[1], out[2]))

    def finish(self, rng: random.Random) -> dict[str, np.ndarray]:
        while self.open:
            self.close(0)
        rng.shuffle(self.rows)
        return {
            k: np.stack([r[i] for r in self.rows])
            for i, k in enumerate(("ids", "weights", "segments"))
        }


def without_repeats(
    rows: dict[str, np.ndarray], weight: int, n: int = 8, window: int = 200
) -> dict[str, np.ndarray]:
    """Only the rows whose tokens of this weight never repeat n in a row within the window."""
    keep = []
    for i, (ids, weights) in enumerate(zip(rows["ids"], rows["weights"], strict=True)):
        last: dict[bytes, int] = {}
        for at in np.flatnonzero(weights[: len(ids) - n + 1] == weight).tolist():
            gram = ids[at : at + n].tobytes()
            if at - last.get(gram, -window) < window:
                break
            last[gram] = at
        else:
            keep.append(i)
    return {name: values[keep] for name, values in rows.items()}
