from __future__ import annotations

import pytest

from penstock.bench.sse import SseParser

STREAM = b': comment\n\ndata: {"a": 1}\n\nevent: x\ndata:two\ndata: lines\n\r\ndata: [DONE]\r\n\r\n'


@pytest.mark.parametrize("size", [1, 2, 3, 7, len(STREAM)])
def test_events_come_out_whole_however_the_bytes_are_cut(size: int) -> None:
    parser = SseParser()
    events = []
    for start in range(0, len(STREAM), size):
        events += parser.feed(STREAM[start : start + size])
    assert events == [b'{"a": 1}', b"two\nlines", b"[DONE]"]


def test_an_event_that_is_not_ended_is_not_told() -> None:
    assert SseParser().feed(b"data: x\n") == []
