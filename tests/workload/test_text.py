"""TOML out is TOML in; lines are found in both languages."""

from __future__ import annotations

import json
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import ConfigError
from penstock.workload.text import parse, to_toml

KEYS = st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True)
SCALARS = (
    st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"), max_size=12)
)
INLINE = st.dictionaries(KEYS, SCALARS, max_size=3)
TABLES = st.dictionaries(KEYS, SCALARS | st.lists(SCALARS, max_size=3) | INLINE, max_size=4)
FILES = st.dictionaries(
    KEYS, SCALARS | TABLES | st.lists(TABLES, min_size=1, max_size=3), max_size=5
)


@given(FILES)
def test_written_toml_is_read_back(tables: dict[str, object]) -> None:
    assert tomllib.loads(to_toml(tables)) == tables


@given(FILES.filter(bool), st.integers(0, 4))
def test_lines_point_at_keys_in_json(tables: dict[str, object], indent: int) -> None:
    text = json.dumps(tables, indent=indent)
    parsed, line = parse(text, "f")
    assert parsed == tables
    rows = text.splitlines()
    for name in tables:
        found = line(name)
        assert found is not None
        assert json.dumps(name) in rows[found - 1]


def test_lines_in_toml() -> None:
    text = "\n".join([
        "a = 1", "[t]", "b = 2", "", "[[list]]", "c = 3", "[[list]]", "c = 4",
        "[list.inner]", "d = { e = 5 }",
    ])  # fmt: skip
    _, line = parse(text, "f")
    assert [line(p) for p in ("a", "t", "t.b", "list[0].c", "list[1].c")] == [1, 2, 3, 6, 8]
    assert line("list[1].inner.d.e") == 10
    assert line("t.missing") == 2
    assert line("nowhere") is None


def test_comments_stand_above_their_line() -> None:
    text = to_toml({"a": 1, "t": {"b": 2}, "l": [{"c": 3}, {"c": 4}]},
                   {"a": "first", "t": "table", "t.b": "second", "l": "list"})  # fmt: skip
    assert text.splitlines()[:2] == ["# first", "a = 1"]
    assert "# table\n[t]\n# second\nb = 2" in text
    assert text.count("# list") == 1


@pytest.mark.parametrize("text", ["a = ", "a = 1\nb = [", '{"a": 1'])
def test_broken_text_names_its_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^f(:\d+)?: not "):
        parse(text, "f")
