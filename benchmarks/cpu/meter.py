"""Whether the cores were ours: what else took them while something was measured."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Reading:
    """Jiffies since the machine's start, of all its CPUs."""

    total: int
    stolen: int
    """by the hypervisor"""
    busy: int
    own: int
    """of the process groups asked for, and of what this process has waited for"""


def read(groups: Collection[int]) -> Reading:
    """groups: of the processes that are measured; this one's is always counted."""
    user, nice, system, idle, iowait, irq, softirq, steal = (
        int(word) for word in (PROC / "stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    busy = user + nice + system + irq + softirq
    wanted, own = {os.getpgrp(), *groups}, 0
    for entry in PROC.iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended
            if int(fields[2]) in wanted:
                own += int(fields[11]) + int(fields[12])
            if int(entry.name) == os.getpid():
                own += int(fields[13]) + int(fields[14])
    return Reading(busy + idle + iowait + steal, steal, busy, own)


def shares(before: Reading, after: Reading) -> dict[str, float]:
    """Shares of all CPUs' time in between; `load` is the load average of the last minute."""
    total = max(1, after.total - before.total)
    foreign = (after.busy - before.busy) - (after.own - before.own)
    return {
        "steal": (after.stolen - before.stolen) / total,
        "foreign": max(0, foreign) / total,
        "load": os.getloadavg()[0],
    }
