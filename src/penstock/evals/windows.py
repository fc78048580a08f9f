"""A text cut into windows: what the model reads, and which of its predictions are scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens that are computed together; those from `first` on are scored (first >= 1)."""

    ids: list[int]
    first: int


def cut(
    ids: Sequence[int], context: int, stride: int, prefix: Sequence[int] = ()
) -> Iterator[Window]:
    """Windows of at most `context` tokens, each beginning with `prefix` (BOS, where a model has
    one). Every token is scored once, but for first tokens that nothing stands before.

    Without overlap (stride >= context) a window knows nothing of the text before it; with it, the
    tokens that are scored have at least context - stride others before them.
    """
    room = context - len(prefix)
    begin = done = 0
    while done < len(ids):
        end = min(len(ids), begin + room)
        first = max(1, len(prefix) + done - begin)
        if len(prefix) + end - begin > first:
            yield Window([*prefix, *ids[begin:end]], first)
        done = end
        begin += min(stride, room)
