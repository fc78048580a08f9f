from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.text.detokenizer import Detokenizer
from penstock.text.tokenizer import Tokenizer
from tests import vocabularies as made

MADE = {
    "byte-level": made.byte_level(),
    "llama": made.sentencepiece(),
    "gemma": made.sentencepiece(strip=False),
    "metaspace": made.metaspace(),
}
TEXTS = st.text(alphabet="ab ené世👋<|im_end|>\n", max_size=12)
STOPS = st.lists(st.text(alphabet="ab é世👋", min_size=1, max_size=4), max_size=3)


def cut(ids: list[int], sizes: list[int]) -> list[list[int]]:
    """The ids in pieces of these sizes, the rest one by one."""
    pieces = []
    for size in sizes:
        pieces.append(ids[:size])
        ids = ids[size:]
    return [*pieces, *([i] for i in ids)]


@pytest.mark.parametrize("kind", MADE)
@settings(max_examples=150, deadline=None)
@given(data=st.data(), skip=st.booleans(), sizes=st.lists(st.integers(0, 4), max_size=4))
def test_deltas_add_up(kind: str, data: st.DataObject, skip: bool, sizes: list[int]) -> None:
    tokenizer = MADE[kind]
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size + 1), max_size=24))
    detokenizer = Detokenizer(tokenizer, skip_special_tokens=skip)
    deltas = [detokenizer.push(piece) for piece in cut(ids, sizes)]
    assert "".join(deltas) + detokenizer.end() == tokenizer.decode(ids, skip)
    assert detokenizer.num_tokens == len(ids)


@pytest.mark.parametrize("kind", MADE)
@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=12))
def test_no_replacement_character_for_real_text(kind: str, text: str) -> None:
    """Emoji and CJK cut across tokens: whole characters or nothing."""
    tokenizer = MADE[kind]
    ids = tokenizer.encode(text, add_special_tokens=False)
    detokenizer = Detokenizer(tokenizer, skip_special_tokens=False)
    deltas = [*(detokenizer.push([i]) for i in ids), detokenizer.end()]
    assert "".join(deltas) == tokenizer.decode(ids, False)
    if "\ufffd" not in text and 0 not in ids:
        assert not any("\ufffd" in delta for delta in deltas)


def first_stop(tokenizer: Tokenizer, ids: list[int], stops: list[str]) -> tuple[int, str] | None:
    """By the definition: tokens one by one, whole decodes, the earliest end, then the longest."""
    for count in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:count])
        if count < len(ids):  # an unfinished character is not text yet
            text = text.rstrip("\ufffd")
        ends = [(text.find(s) + len(s), -len(s), s) for s in stops if s in text]
        if ends:
            end, size, _ = min(ends)
            return count, text[: end + size]
    return None


@pytest.mark.parametrize("kind", ["byte-level", "llama"])
@settings(max_examples=300, deadline=None)
@given(text=TEXTS, stops=STOPS, sizes=st.lists(st.integers(0, 4), max_size=4))
def test_stop_strings(kind: str, text: str, stops: list[str], sizes: list[int]) -> None:
    tokenizer = MADE[kind]
    ids = tokenizer.encode(text, add_special_tokens=False)
    detokenizer = Detokenizer(tokenizer, stop=stops)
    got = "".join(detokenizer.push(piece) for piece in cut(ids, sizes)) + detokenizer.end()
    wanted = first_stop(tokenizer, ids, stops)
    if wanted is None:
        assert detokenizer.matched is None
        assert got == tokenizer.decode(ids)
    else:
        assert (detokenizer.num_tokens, got) == wanted
        assert detokenizer.matched in stops


def push_all(detokenizer: Detokenizer, ids: list[int]) -> list[str]:
    return [detokenizer.push([i]) for i in ids]


def test_text_that_may_begin_a_stop_is_held_back() -> None:
    tokenizer = MADE["llama"]
    ids = [tokenizer.token_to_id(t) or 0 for t in ("a", "b", "c", "a", "b", "a")]
    detokenizer = Detokenizer(tokenizer, stop=["aba", "zz"])
    assert push_all(detokenizer, ids) == ["", "", "abc", "", "", ""]
    assert (detokenizer.matched, detokenizer.num_tokens) == ("aba", 6)
    assert detokenizer.push([ids[0]]) == ""
    assert detokenizer.num_tokens == 6
    detokenizer = Detokenizer(tokenizer, stop=["aba"])
    assert push_all(detokenizer, ids[:5]) == ["", "", "abc", "", ""]
    assert detokenizer.end() == "ab"


def test_the_stop_can_stay() -> None:
    tokenizer = MADE["llama"]
    ids = [tokenizer.token_to_id(t) or 0 for t in ("a", "b", "ab", "c")]
    detokenizer = Detokenizer(tokenizer, stop=["ba"], include_stop=True)
    assert "".join(push_all(detokenizer, ids)) == "aba"
    assert detokenizer.num_tokens == 3


def test_complete_first_wins_then_the_longest() -> None:
    tokenizer = MADE["byte-level"]
    ids = tokenizer.encode("xxabcd")
    for stops in (["abc", "b"], ["b", "abc"]):
        detokenizer = Detokenizer(tokenizer, stop=stops)
        assert detokenizer.push(ids) + detokenizer.end() == "xxa"
        assert detokenizer.matched == "b"
    detokenizer = Detokenizer(tokenizer, stop=["c", "bc"])
    assert detokenizer.push(ids) + detokenizer.end() == "xxa"
    assert detokenizer.matched == "bc"


def test_a_stop_in_fallback_bytes_matches_at_its_own_last_token() -> None:
    """A run of byte tokens is held back; the token behind it must not be taken for the match."""
    tokenizer = MADE["llama"]
    ids = tokenizer.encode("a👋b", add_special_tokens=False)
    detokenizer = Detokenizer(tokenizer, stop=["👋"])
    assert detokenizer.push(ids) == "a"
    assert ids[detokenizer.num_tokens :] == [tokenizer.token_to_id("b")]


def test_min_tokens() -> None:
    tokenizer = MADE["llama"]
    ids = [tokenizer.token_to_id(t) or 0 for t in ("a", "b", "a", "b", "c")]
    for least, wanted in [
        (0, ("", 2)),
        (1, ("", 2)),
        (2, ("ab", 4)),
        (3, ("ab", 4)),
        (4, ("ababc", 5)),
    ]:
        detokenizer = Detokenizer(tokenizer, stop=["ab"], min_tokens=least)
        assert (detokenizer.push(ids) + detokenizer.end(), detokenizer.num_tokens) == wanted


def test_cost_does_not_grow_with_the_text() -> None:
    """Every push looks at its own token and the held text, whatever came before."""
    tokenizer = MADE["byte-level"]
    detokenizer = Detokenizer(tokenizer, stop=["never seen"])
    for _ in range(50):
        detokenizer.push(tokenizer.encode(made.TEXTS[0]))
        assert len(detokenizer._held) < len("never seen")
