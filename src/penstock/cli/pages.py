"""docs/cli.md and docs/config.md, made from the flags and the config tree."""

from __future__ import annotations

import inspect
import sys

from penstock import settings
from penstock.cli import COMMANDS, application
from penstock.config.option import Option
from penstock.config.tree import SECTIONS, all_options

NOTICE = "<!-- Made by tools/docs.py (make fix): edit the source, not this page. -->\n"


def commands() -> str:
    """Every command with its help text."""
    app = application()
    parts = [NOTICE, "# Commands\n", _block("penstock --help", settings.help_text(app, ()))]
    for item in COMMANDS:
        words = " ".join(item.words)
        text = settings.help_text(app, item.words)
        parts.append(f"## penstock {words}\n\n{_block(f'penstock {words} --help', text)}")
    return "\n".join(parts)


def _block(line: str, text: str) -> str:
    body = "\n".join(row.rstrip() for row in text.strip("\n").splitlines())
    return f"```text\n$ {line}\n{body}\n```\n"


def config() -> str:
    """Every option: key, flag, environment variable, default, meaning."""
    parts = [
        NOTICE,
        "# Configuration\n",
        "A value is taken from the first of these that gives one: a flag, an environment variable,"
        " a TOML file\n(`--config FILE` or `PENSTOCK_CONFIG`), the default. In the file each"
        " section below is a table, and names are\nwritten as here; a flag is"
        " `--name-with-hyphens` (`--no-…` switches off), an environment variable\n"
        "`PENSTOCK_NAME` (several values separated by commas). Unknown names are refused.\n",
    ]
    for section, kind in SECTIONS.items():
        module = inspect.getdoc(sys.modules[kind.__module__]) or ""
        rows = [_row(option) for option in all_options() if option.section == section]
        head = ["| name | default | meaning |", "| --- | --- | --- |"]
        parts.append(f"## [{section}]\n\n{module}\n\n" + "\n".join(head + rows) + "\n")
    rows = [f"| `{name}` | {text} |" for name, text in settings.OTHER_VARIABLES.items()]
    head = ["| variable | meaning |", "| --- | --- |"]
    parts.append("## Other environment variables\n\n" + "\n".join(head + rows) + "\n")
    return "\n".join(parts)


def _row(option: Option) -> str:
    default = option.default_text or "none"
    automatic = option.default is None or option.default == ()
    shown = default if automatic else f"`{default}`"
    notes = [option.help]
    notes += [f"in {option.unit}"] if option.unit else []
    notes += ["one of " + ", ".join(f"`{c}`" for c in option.choices)] if option.choices else []
    notes += ["may be repeated"] if option.many and "repeatable" not in option.help else []
    return f"| `{option.name}` | {shown} | {'; '.join(notes)} |"
