from __future__ import annotations

from penstock.cli import COMMANDS, pages
from penstock.config.tree import SECTIONS, all_options


def test_every_option_has_a_row() -> None:
    text = pages.config()
    for option in all_options():
        assert f"| `{option.name}` |" in text
    for section in SECTIONS:
        assert f"## [{section}]" in text


def test_rows_say_default_unit_and_choices() -> None:
    text = pages.config()
    assert "| `port` | `8000` | Port to listen on; 0 for any free one |" in text
    assert "| `max_waiting` | 4 x max_num_seqs | " in text
    assert "in requests |" in text
    assert "one of `fcfs`, `priority`, `slo` |" in text


def test_every_command_has_its_help() -> None:
    text = pages.commands()
    for item in COMMANDS:
        words = " ".join(item.words)
        assert f"$ penstock {words} --help\nUsage: penstock {words}" in text
