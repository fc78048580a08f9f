"""Write the pages of docs/ that are made from the code; with --check, fail when one is stale.

A page is one line in PAGES: a file in docs/, and "module:function" that returns its text.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
PAGES = {
    "api.md": "penstock.server.apidoc:render",
    "cli.md": "penstock.cli.pages:commands",
    "config.md": "penstock.cli.pages:config",
    "doctor.md": "penstock.debug.doctor:render_docs",
    "logs.md": "penstock.observe.schema:render_docs",
    "grafana.json": "penstock.observe.grafana:render",
    "metrics.md": "penstock.observe.catalog:render_docs",
    "workload.schema.json": "penstock.workload.file:render_schema",
}


def render(page: str) -> str:
    """The text of a page."""
    module, function = PAGES[page].split(":")
    text: str = getattr(importlib.import_module(module), function)()
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a difference")
    check = parser.parse_args().check
    stale = []
    for page in PAGES:
        path, text = DOCS / page, render(page)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(page)
            if not check:
                path.write_text(text, encoding="utf-8")
    for page in stale:
        print(f"docs/{page}: {'stale, run make fix' if check else 'written'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
