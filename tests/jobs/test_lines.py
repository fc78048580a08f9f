from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.jobs.lines import LineError, failure, parse, result

GOOD: dict[str, Any] = {
    "custom_id": "a",
    "method": "POST",
    "url": "/v1/completions",
    "body": {"prompt": "hi"},
}


def test_a_good_line() -> None:
    line = parse(json.dumps(GOOD).encode() + b"\r\n")
    assert (line.custom_id, line.url, line.body) == ("a", "/v1/completions", {"prompt": "hi"})
    assert line.error is None


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"custom_id": None}, "invalid_custom_id"),
        ({"custom_id": ""}, "invalid_custom_id"),
        ({"custom_id": 7}, "invalid_custom_id"),
        ({"custom_id": "x" * 513}, "invalid_custom_id"),
        ({"method": "GET"}, "invalid_method"),
        ({"method": None}, "invalid_method"),
        ({"url": "/v1/images"}, "invalid_url"),
        ({"url": ["/v1/completions"]}, "invalid_url"),
        ({"body": "text"}, "invalid_body"),
        ({"body": {"stream": True}}, "stream_not_supported"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], code: str) -> None:
    line = parse(json.dumps(GOOD | change).encode())
    assert line.error is not None
    assert line.error.code == code
    assert line.body is None
    wanted = (GOOD | change)["custom_id"]
    assert line.custom_id == (wanted if isinstance(wanted, str) else None)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"{", "invalid_json"),
        (b"\xff\xfe", "invalid_json"),
        (b'{"custom_id": "\xff"}', "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b"[1]", "invalid_line"),
        (b"null", "invalid_line"),
    ],
)
def test_what_is_no_json_object_is_told(text: bytes, code: str) -> None:
    line = parse(text)
    assert line.error is not None
    assert line.error.code == code


def test_lines_of_output() -> None:
    answered = json.loads(result("batch_req_1", "a", 400, "req-7", {"error": {"code": "x"}}))
    assert answered == {
        "id": "batch_req_1",
        "custom_id": "a",
        "response": {"status_code": 400, "request_id": "req-7", "body": {"error": {"code": "x"}}},
        "error": None,
    }
    failed = json.loads(failure("batch_req_2", None, LineError("invalid_json", "no")))
    assert failed == {
        "id": "batch_req_2",
        "custom_id": None,
        "response": None,
        "error": {"code": "invalid_json", "message": "no"},
    }
