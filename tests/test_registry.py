from __future__ import annotations

import pytest

from penstock.errors import ConfigError
from penstock.registry import Registry

TABLE = Registry("thing", ConfigError, {"b": "math:pi", "a": "math:no_such_name"})


def test_an_entry_is_imported_when_asked_for() -> None:
    import math

    assert TABLE.load("b") == math.pi


def test_names_are_sorted() -> None:
    assert TABLE.names == ("a", "b")


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(ConfigError, match=r"Unknown thing 'c'\. Known: a, b\."):
        TABLE.load("c")


def test_a_wrong_entry_fails_when_it_is_loaded() -> None:
    with pytest.raises(AttributeError):
        TABLE.load("a")
