from __future__ import annotations

from penstock.bench.prompts import FIRST_ID, WORDS, Prompts


def test_ids_have_the_length_stay_in_range_and_differ() -> None:
    prompts = Prompts(seed=1, length=50, shared_len=20, vocab_size=300)
    first, second, other_group = prompts.ids(0, 0), prompts.ids(0, 1), prompts.ids(1, 0)
    assert len(first) == len(second) == len(other_group) == 50
    assert all(FIRST_ID * 3 // 4 <= token < 300 for token in first + second)
    assert first[:20] == second[:20]
    assert first[20:] != second[20:]
    assert first[:20] != other_group[:20]


def test_prompts_are_a_function_of_seed_group_and_index() -> None:
    assert Prompts(1, 9, vocab_size=500).ids(2, 3) == Prompts(1, 9, vocab_size=500).ids(2, 3)
    assert Prompts(1, 9, vocab_size=500).ids(2, 3) != Prompts(2, 9, vocab_size=500).ids(2, 3)


def test_a_tiny_vocabulary_is_enough() -> None:
    assert set(Prompts(1, 100, vocab_size=4).ids(0, 0)) == {1, 2, 3}


def test_text_has_as_many_words_as_the_ratio_asks() -> None:
    prompts = Prompts(seed=1, length=50, shared_len=20)
    words = prompts.text(0, 0, words_per_token=0.8).split()
    assert len(words) == 40
    assert set(words) <= set(WORDS)
    assert words[:16] == prompts.text(0, 1, words_per_token=0.8).split()[:16]
    assert prompts.text(0, 0, words_per_token=0.001) != ""
