"""Faults by name, from the logs alone: every rule looks at the whole log and says what it found.

A finding holds its evidence (ids and numbers), the likely cause and the next step. Rules are meant
to be silent on a healthy run: what they ask for is a pattern, not one slow request.
"""

from __future__ import annotations

from penstock.debug import faults_replicas, faults_text, faults_time
from penstock.debug.findings import Finding, Rule
from penstock.observe.reader import Log

RULES: dict[str, Rule] = {**faults_text.RULES, **faults_time.RULES, **faults_replicas.RULES}
"""By the name of the fault."""


def examine(log: Log) -> list[Finding]:
    """What is wrong, in the order of the rules."""
    found = (rule(log) for rule in RULES.values())
    return [finding for finding in found if finding is not None]


def render_docs() -> str:
    """docs/doctor.md: every fault that is named, from the docstrings of the rules."""
    head = (
        "<!-- Made by tools/docs.py (make fix): edit src/penstock/debug/faults_*.py. -->\n\n"
        "# Faults that `penstock doctor` names\n\n"
        "`penstock doctor DIR` reads a log (`--log-dir`) and names what is wrong, each with its\n"
        "evidence, likely cause and next step; exit code 1 if there is anything. The drill in\n"
        "`tests/drill` injects faults into real runs, and asks that healthy ones are silent.\n\n"
        "| fault | what the log shows |\n| --- | --- |\n"
    )
    rows = []
    for name, rule in RULES.items():
        text = " ".join((rule.__doc__ or "").split())
        rows.append(f"| `{name}` | {text} |\n")
    return head + "".join(rows)
