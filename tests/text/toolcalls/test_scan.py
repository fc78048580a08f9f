from __future__ import annotations

import json

import pytest

from penstock.text.toolcalls.scan import ValueScan

VALUES = [
    '{"a": [1, {"b": "}]\\""}], "c": ""}',
    '"a \\\\"',
    '"\\u0041, }"',
    "[]",
    '[["]"], {}]',
]


@pytest.mark.parametrize("value", VALUES)
def test_a_value_ends_where_json_says(value: str) -> None:
    json.loads(value)
    for size in range(1, len(value) + 1):
        scan = ValueScan()
        taken = 0
        text = value + ', "more": 1}'
        for at in range(0, len(text), size):
            part = text[at : at + size]
            count = scan.feed(part)
            taken += count
            if count < len(part) or scan.done:
                break
        assert (taken, scan.done) == (len(value), True)


@pytest.mark.parametrize(
    ("text", "size"), [("12.5, ", 4), ("true}", 4), ("null ]", 4), ("-1e9\n", 4)]
)
def test_scalars_end_before_what_follows(text: str, size: int) -> None:
    scan = ValueScan()
    assert scan.feed(text[:2]) == 2
    assert not scan.done
    assert 2 + scan.feed(text[2:]) == size
    assert scan.done
