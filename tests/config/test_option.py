from __future__ import annotations

from dataclasses import MISSING, dataclass

import pytest

from penstock.config.option import option, options
from penstock.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Sample:
    url: str = option(MISSING, "Where", positional=True)
    width_s: float = option(2.0, "How wide", unit="seconds")
    size_bytes: int = option(64 * 2**20, "How large", unit="bytes")
    levels: tuple[int, ...] = option((1, 2), "Which")
    names: tuple[str, ...] = option((), "Whom", automatic="everybody")
    limit: int | None = option(None, "How many", automatic="no limit")
    fast: bool = option(True, "Whether")
    mode: str = option("a", "How", choices=("a", "b"), short="-m")


FOUND = {item.name: item for item in options(Sample, "part")}


def test_types_are_read_from_the_annotations() -> None:
    kinds = {name: (item.kind, item.many, item.optional) for name, item in FOUND.items()}
    assert kinds == {
        "url": (str, False, False),
        "width_s": (float, False, False),
        "size_bytes": (int, False, False),
        "levels": (int, True, False),
        "names": (str, True, False),
        "limit": (int, False, True),
        "fast": (bool, False, False),
        "mode": (str, False, False),
    }
    assert [name for name, item in FOUND.items() if item.required] == ["url"]


def test_names_in_every_source() -> None:
    item = FOUND["width_s"]
    assert (item.flag, item.variable, item.path) == (
        "--width-s",
        "PENSTOCK_WIDTH_S",
        "part.width_s",
    )


def test_default_texts() -> None:
    texts = {name: item.default_text for name, item in FOUND.items()}
    assert texts == {
        "url": "",
        "width_s": "2",
        "size_bytes": "64MiB",
        "levels": "1,2",
        "names": "everybody",
        "limit": "no limit",
        "fast": "on",
        "mode": "a",
    }


def test_choices() -> None:
    FOUND["mode"].check("b")
    FOUND["url"].check("anything")
    with pytest.raises(ConfigError, match=r"--mode is 'c'.*Use one of a, b"):
        FOUND["mode"].check("c")
