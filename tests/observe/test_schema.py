from __future__ import annotations

from dataclasses import fields

from penstock.core.records import KINDS, Wait
from penstock.observe.schema import docstrings, render_docs


def test_every_kind_and_field_stands_on_the_page() -> None:
    page = render_docs()
    for kind, record in KINDS.items():
        assert f"## `{kind}`" in page
        for item in fields(record):
            assert f"| `{item.name}` |" in page


def test_docstrings_of_fields() -> None:
    assert docstrings(Wait)["behind"].startswith("id of the request in front")
