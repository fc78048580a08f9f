from __future__ import annotations

from typing import Any

import msgspec
import pytest

from penstock.errors import InvalidFieldError, UnsupportedFieldError
from penstock.server.fields import Field, Rule
from penstock.server.tables import (
    BATCHES,
    COUNT,
    EMBEDDINGS,
    ENDPOINTS,
    GENERATE,
    LOAD_ADAPTER,
    MESSAGES,
    RESPONSES,
    SCORE,
    TABLES,
    UNLOAD_ADAPTER,
    all_tables,
    parse,
)

LEAST: dict[str, dict[str, Any]] = {
    RESPONSES: {"input": "Hi"},
    MESSAGES: {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5},
    COUNT: {"messages": [{"role": "user", "content": "Hi"}]},
    EMBEDDINGS: {"input": "Hi"},
    SCORE: {"context": "Hi", "continuation": " you"},
    GENERATE: {"token_ids": [1, 2]},
    LOAD_ADAPTER: {"lora_name": "a", "lora_path": "/a"},
    UNLOAD_ADAPTER: {"lora_name": "a"},
    BATCHES: {"input_file_id": "f", "endpoint": "/v1/completions", "completion_window": "24h"},
}


def send(endpoint: str, **fields: Any) -> Any:
    return parse(endpoint, msgspec.json.encode({**LEAST[endpoint], **fields}))


def test_a_name_stands_once_on_an_endpoint() -> None:
    for endpoint, (_, table) in all_tables().items():
        assert table, endpoint
        assert all(field.name == name for name, field in table.items())


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_what_is_required(endpoint: str) -> None:
    required = {name for name, field in TABLES[endpoint].items() if field.required}
    assert required <= set(LEAST[endpoint])
    for name in required:
        with pytest.raises(InvalidFieldError, match=f"{name} is missing"):
            parse(endpoint, msgspec.json.encode({**LEAST[endpoint], name: None}))


def fields(rule: Rule) -> list[Any]:
    return [
        pytest.param(endpoint, field, id=f"{endpoint}-{field.name}")
        for endpoint in ENDPOINTS
        for field in TABLES[endpoint].values()
        if field.rule is rule
    ]


@pytest.mark.parametrize(("endpoint", "field"), fields(Rule.REFUSED))
def test_refused_unless_default(endpoint: str, field: Field) -> None:
    assert send(endpoint, **{field.name: None}).values == send(endpoint).values
    with pytest.raises(UnsupportedFieldError) as caught:
        send(endpoint, **{field.name: {"not": "a default"}})
    assert caught.value.param == field.name
