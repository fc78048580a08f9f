"""Pages made from the code are fresh; pages written by hand point at what exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def test_generated_pages_are_fresh() -> None:
    command = [sys.executable, str(ROOT / "tools" / "docs.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"run `make fix`:\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_commands_of_the_readme_exist() -> None:
    """Every `penstock …` and `make …` that the README shows is one that there is."""
    from penstock.cli import COMMANDS

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = set(
        re.findall(r"^penstock (\w+(?: (?:run|serve|stats|explain)\b)?)", text, re.MULTILINE)
    )
    assert shown
    assert shown <= {" ".join(item.words) for item in COMMANDS}
    targets = set(re.findall(r"\bmake ([a-z-]+)", text))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
