from __future__ import annotations

import math
from dataclasses import replace

import pytest

from penstock.errors import InvalidFieldError, UnsupportedFieldError
from penstock.server.calls import Asked
from penstock.server.reading import Pairs, embeddings_call, shaped
from penstock.server.tables import EMBEDDINGS, parse
from tests.llm.fake_client import FakeClient, llm_over, saying
from tests.server.stage import TOKENIZER

ASKED = Asked(None, None, 0.0)


def test_vectors_are_cut_and_then_normalised() -> None:
    assert shaped([3.0, 4.0, 12.0], 2, True).tolist() == pytest.approx([0.6, 0.8])
    assert shaped([3.0, 4.0], None, False).tolist() == [3.0, 4.0]
    assert shaped([0.0, 0.0], None, True).tolist() == [0.0, 0.0]
    assert shaped([1.0], None, True).tobytes() == b"\x00\x00\x80?"
    assert math.isclose(math.hypot(*shaped([0.1] * 100, 50, True)), 1, rel_tol=1e-6)


@pytest.mark.parametrize(
    ("sizes", "wanted", "ok"),
    [((), 8, True), ((0,), 3, True), ((4, 2), 4, True), ((4, 2), 3, False), ((0,), 9, False)],
)
async def test_dimensions_as_the_model_allows(
    sizes: tuple[int, ...], wanted: int, ok: bool
) -> None:
    llm = llm_over(FakeClient(saying(TOKENIZER, "x")), TOKENIZER)
    llm.info = replace(llm.info, hidden_size=8, shorter_embeddings=sizes)
    body = parse(EMBEDDINGS, b'{"input": "x", "dimensions": %d}' % wanted)
    if ok:
        assert embeddings_call(llm, body, ASKED, "last").num_choices == 1
    else:
        with pytest.raises(InvalidFieldError, match="dimensions"):
            embeddings_call(llm, body, ASKED, "last")


async def test_a_model_that_cannot_be_cut_says_so() -> None:
    llm = llm_over(FakeClient(saying(TOKENIZER, "x")), TOKENIZER)
    llm.info = replace(llm.info, hidden_size=8)
    body = parse(EMBEDDINGS, b'{"input": "x", "dimensions": 4}')
    with pytest.raises(UnsupportedFieldError, match="not trained"):
        embeddings_call(llm, body, ASKED, "last")
    for field in ("pooling", "encoding_format"):
        body = parse(EMBEDDINGS, b'{"input": "x", "%s": "max"}' % field.encode())
        with pytest.raises(InvalidFieldError, match=field):
            embeddings_call(llm, body, ASKED, "last")


async def test_pairs_are_split_where_the_context_ends() -> None:
    llm = llm_over(FakeClient(saying(TOKENIZER, "x")), TOKENIZER)
    pairs = Pairs(["Once upon ", "Once upon"], ["a time", " a time"])
    await pairs.tokenize(llm, True)
    assert pairs.ids[0] == pairs.ids[1]
    assert pairs.starts[0] == pairs.starts[1]
    assert TOKENIZER.decode(pairs.ids[0][pairs.starts[0] :]) == " a time"
    shared = Pairs(["Once"], [" a", " b"])
    assert shared.texts == [("Once", " a"), ("Once", " b")]
    with pytest.raises(InvalidFieldError, match="3 contexts for 2"):
        Pairs(["a", "b", "c"], ["d", "e"])
    for context, continuation, which in (("", "x", "context"), ("x", "", "continuation")):
        with pytest.raises(InvalidFieldError) as caught:
            await Pairs([context], [continuation]).tokenize(llm, False)
        assert caught.value.param == which
