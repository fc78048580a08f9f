from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.sim.names import block_names
from penstock.workload.prefixes import Segment, block_ids

PROMPTS = st.lists(
    st.builds(Segment, st.integers(0, 3), st.integers(1, 40)), min_size=1, max_size=6
).map(tuple)


@given(PROMPTS, PROMPTS, st.sampled_from([1, 4, 16]))
def test_names_agree_exactly_as_far_as_texts_do(
    one: tuple[Segment, ...], two: tuple[Segment, ...], size: int
) -> None:
    names, ids = block_names(one, size), block_ids(one, size)
    others, other_ids = block_names(two, size), block_ids(two, size)
    assert len(names) == len(ids) == sum(s.tokens for s in one) // size
    assert len(set(names)) == len(names)
    same = [a == b for a, b in zip(names, others, strict=False)]
    assert same == [a == b for a, b in zip(ids, other_ids, strict=False)]
    assert same == sorted(same, reverse=True)


def test_an_answer_that_a_prompt_repeats_keeps_its_names() -> None:
    prompt, answer = (Segment(5, 100),), Segment(9, 50)
    following = (*prompt, answer, Segment(11, 30))
    names = block_names((*prompt, answer), 16)
    assert block_names(following, 16)[: len(names)] == names
