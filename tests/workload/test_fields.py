"""Declared fields: read, refused, written, and described by a schema."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.workload.fields import Problem, Reader, json_schema, plain, spec


@dataclass(frozen=True)
class Leaf:
    """A leaf."""

    size: int = spec("its size", unit="cm", minimum=1, maximum=9)
    colour: str = spec("its colour", default="green", choices=("green", "red"))


@dataclass(frozen=True)
class Tree:
    """A tree of leaves."""

    name: str = spec("its name")
    leaves: tuple[Leaf, ...] = spec("at least one")
    best: Leaf | None = spec("the finest", default=None)
    curve: tuple[tuple[float, float], ...] = spec("points", default=())

    def problems(self) -> Iterator[Problem]:
        if self.best is not None and self.best not in self.leaves:
            yield Problem("best", "is none of the leaves.", "Name one of them.")


def read(table: object) -> tuple[Tree | None, list[Problem]]:
    reader = Reader(lambda path: len(path))
    return reader.read(Tree, table), reader.problems


def test_a_good_table_becomes_the_dataclass_and_back() -> None:
    table = {"name": "oak", "leaves": [{"size": 3}], "best": {"size": 3}, "curve": [[0, 1.5]]}
    tree, problems = read(table)
    assert problems == []
    assert tree == Tree("oak", (Leaf(3),), Leaf(3), ((0.0, 1.5),))
    assert read(plain(tree))[0] == tree


@pytest.mark.parametrize(
    ("table", "field", "words"),
    [
        ({"leaves": [{"size": 3}]}, "name", "missing"),
        ({"name": " ", "leaves": [{"size": 3}]}, "name", "empty"),
        ({"name": "a", "leaves": []}, "leaves", "empty"),
        ({"name": "a", "leaves": {"size": 3}}, "leaves", "not a list"),
        ({"name": "a", "leaves": [{"size": 0}]}, "leaves[0].size", "less than 1"),
        ({"name": "a", "leaves": [{"size": 10}]}, "leaves[0].size", "more than 9"),
        ({"name": "a", "leaves": [{"size": True}]}, "leaves[0].size", "not a whole number"),
        ({"name": "a", "leaves": [{"size": 3.5}]}, "leaves[0].size", "not a whole number"),
        ({"name": "a", "leaves": [{"size": 3, "colour": "blue"}]}, "leaves[0].colour", "choices"),
        ({"name": "a", "leaves": [7]}, "leaves[0]", "not a table"),
        ({"name": "a", "leaves": [{"size": 3}], "best": {"size": 4}}, "best", "none of"),
        ({"name": "a", "leaves": [{"size": 3}], "curve": [[1]]}, "curve[0]", "[1]"),
        ({"name": "a", "leaves": [{"size": 3}], "leafs": 1}, "leafs", "unknown"),
        (7, "the file", "not a table"),
    ],
)
def test_wrong_tables_are_named(table: object, field: str, words: str) -> None:
    _, (problem,) = read(table)
    assert problem.field == field
    assert words in problem.cause
    assert problem.cure


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "leaves", "size", "best", "x"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_data_is_read_or_complained_about(data: object) -> None:
    tree, problems = read(data)
    assert (tree is None) == bool(problems) or problems == []
    assert tree is not None or problems


def test_the_schema_describes_what_the_reader_takes() -> None:
    schema = json_schema(Tree, "Trees", "https://example.org/tree.json")
    assert schema["required"] == ["name", "leaves"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["leaves"]["items"]["$ref"] == "#/$defs/Leaf"
    size = schema["$defs"]["Leaf"]["properties"]["size"]
    assert size == {"type": "integer", "minimum": 1, "maximum": 9, "description": "its size [cm]"}
    colour = schema["$defs"]["Leaf"]["properties"]["colour"]
    assert (colour["enum"], colour["default"]) == (["green", "red"], "green")
