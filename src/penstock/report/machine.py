"""On what a figure was measured: it stands in every result file."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

SECRET = "--api-key"
PACKAGES = ("penstock", "torch", "transformers", "numpy", "tokenizers", "uvicorn")


def machine_info() -> dict[str, Any]:
    """Hardware, software and date as plain data. Imports none of the packages that it names."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "load_average": [round(x, 2) for x in os.getloadavg()],
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions(),
    }


def cpu() -> dict[str, str]:
    """`cpu`: its name; `cpu_id`: vendor, family and model, since virtual machines hide the name."""
    found: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            found.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    name = found.get("model name") or platform.processor() or platform.machine()
    numbers = [f"{key} {found[key]}" for key in ("cpu family", "model") if key in found]
    return {"cpu": name, "cpu_id": ", ".join([found.get("vendor_id", "unknown"), *numbers])}


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Installed versions by package name; absent packages are left out."""
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def command_line(argv: Sequence[str] | None = None) -> str:
    """The command as it was typed, as well as Python can tell; API keys are left out."""
    program, *rest = sys.argv if argv is None else argv
    name = Path(program).name
    shown = ["penstock" if name == "__main__.py" else name]
    for before, word in zip(["", *rest], rest, strict=False):
        if before == SECRET:
            word = "KEY"
        elif word.startswith(f"{SECRET}="):
            word = f"{SECRET}=KEY"
        shown.append(word)
    return shlex.join(shown)
