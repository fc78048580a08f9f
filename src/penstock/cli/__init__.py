"""The program `penstock`: one file a command, each imported only when it is chosen."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import penstock
from penstock import settings
from penstock.errors import ConfigError, PenstockError
from penstock.settings import Command

SUMMARY = "Penstock serves transformer language models."
COMMANDS = (
    Command(
        ("serve",),
        "penstock.cli.serve:serve",
        "Serve a model behind an OpenAI-style API",
    ),
    Command(
        ("chat",),
        "penstock.cli.chat:chat",
        "Talk to a model in the terminal",
    ),
    Command(
        ("batch", "run"),
        "penstock.cli.batch:run",
        "Run a file of requests offline; it resumes where it was interrupted",
    ),
    Command(
        ("bench", "serve"),
        "penstock.cli.bench:serve",
        "Measure any OpenAI-style server under load",
    ),
    Command(
        ("bench", "run"),
        "penstock.cli.bench:load",
        "Drive any OpenAI-style server with a workload and judge it by its promises",
    ),
    Command(
        ("bench", "compare"),
        "penstock.cli.bench:compare",
        "Two runs side by side: what changed, and whether that can be chance",
    ),
    Command(
        ("workload", "init"),
        "penstock.cli.workload:init",
        "Write a workload file to fill in",
    ),
    Command(
        ("workload", "check"),
        "penstock.cli.workload:check",
        "Name every missing, unknown or contradictory field of a workload file",
    ),
    Command(
        ("workload", "show"),
        "penstock.cli.workload:show",
        "Draw a workload's rates and lengths",
    ),
    Command(
        ("workload", "from-trace"),
        "penstock.cli.workload:from_trace",
        "Fit a workload file to recorded traffic",
    ),
    Command(
        ("workload", "from-log"),
        "penstock.cli.workload:from_log",
        "Fit a workload file to what a server logged",
    ),
    Command(
        ("workload", "export"),
        "penstock.cli.workload:export",
        "Write the load for guidellm, aiperf or inference-perf",
    ),
    Command(
        ("plan",),
        "penstock.cli.plan:plan",
        "Size a deployment for a workload before paying for it",
    ),
    Command(
        ("simulate",),
        "penstock.cli.simulate:simulate",
        "Run a workload on the production scheduler in virtual time",
    ),
    Command(
        ("hw", "show"),
        "penstock.cli.hw:show",
        "The hardware table, with the source of every figure",
    ),
    Command(
        ("hw", "measure"),
        "penstock.cli.hw:measure",
        "Measure this machine for the hardware table",
    ),
    Command(
        ("cache", "show"),
        "penstock.cli.cache:show",
        "Prepared weights that starts have left on the disk",
    ),
    Command(
        ("cache", "clear"),
        "penstock.cli.cache:clear",
        "Delete prepared weights",
    ),
    Command(
        ("logs", "tail"),
        "penstock.cli.logs:tail",
        "The latest requests, a line each",
    ),
    Command(
        ("logs", "stats"),
        "penstock.cli.logs:stats",
        "Mean, p50, p95, p99 of every latency, tokens and hit rates, by group",
    ),
    Command(
        ("logs", "query"),
        "penstock.cli.logs:query",
        "SQL over requests, choices, steps and telemetry",
    ),
    Command(
        ("logs", "explain"),
        "penstock.cli.logs:explain",
        "Where each millisecond of a request went",
    ),
    Command(
        ("logs", "slowest"),
        "penstock.cli.logs:slowest",
        "The slowest requests, and what each waited for",
    ),
    Command(
        ("logs", "prefix"),
        "penstock.cli.logs:prefix",
        "Prefix reuse, actual and ideal, and where turns of a session part",
    ),
    Command(
        ("logs", "export"),
        "penstock.cli.logs:export",
        "The log as a Perfetto trace, or as a trace of load to replay",
    ),
    Command(
        ("replay",),
        "penstock.cli.replay:replay",
        "Generate logged requests again, and compare token by token",
    ),
    Command(
        ("doctor",),
        "penstock.cli.doctor:doctor",
        "Name faults from the logs alone",
    ),
    Command(
        ("eval",),
        "penstock.cli.eval:evaluate",
        "Judge a model's quantization on a text",
    ),
)
GROUPS = {
    "bench": "Measure any OpenAI-style server under load",
    "workload": "Define a workload, draw it, and generate its load",
    "logs": "Read what a server logged (--log-dir)",
    "hw": "What devices can do and what they cost",
    "cache": "Prepared weights on the disk",
}
"""Help of first words that stand before several commands."""


def application() -> settings.Application:
    """The program with all its commands."""
    return settings.application("penstock", SUMMARY, penstock.__version__, COMMANDS, GROUPS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 2 for wrong settings, 1 for another failure."""
    try:
        return settings.call(application(), argv)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if settings.debugging():
            raise
        print(f"error: {_line(error)}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1


def _line(error: Exception) -> str:
    if isinstance(error, PenstockError):
        return " ".join(str(error).split())
    hint = "This is a fault of Penstock: PENSTOCK_DEBUG=1 shows where."
    return f"{type(error).__name__}: {' '.join(str(error).split())}. {hint}"
