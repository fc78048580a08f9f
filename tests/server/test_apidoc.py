from __future__ import annotations

from pathlib import Path

from penstock.errors import ERRORS
from penstock.server.apidoc import PATHS, render
from penstock.server.app import ROUTES
from penstock.server.fields import FIELDS

PAGE = Path(__file__).parent.parent.parent / "docs" / "api.md"


def test_the_page_is_fresh() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run `make fix`"


def test_the_page_names_every_path_field_and_error() -> None:
    page = render()
    listed = " ".join(path for path, _ in PATHS)
    assert [route.path for route in ROUTES if route.path.split("{")[0] not in listed] == []
    assert [field.name for field in FIELDS if f"| `{field.name}` |" not in page] == []
    assert "`queue_full` | 429" in page
    assert all(f"`{code}`" in page for code in ERRORS if code.startswith("invalid"))
