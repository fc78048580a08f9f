"""`penstock doctor`"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from penstock.config.option import option
from penstock.debug.doctor import RULES, examine
from penstock.observe import reader
from penstock.settings import command


@dataclass(frozen=True, slots=True)
class DoctorOptions:
    dir: str = option("penstock-logs", "The folder that --log-dir gave", positional=True)
    json: bool = option(False, "Print JSON")


@command(own=DoctorOptions)
def doctor(options: DoctorOptions) -> int:
    """Name what is wrong from the logs alone (docs/doctor.md lists the faults). Exit code 1 if
    there is anything."""
    log = reader.read(Path(options.dir))
    findings = examine(log)
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
        return 1 if findings else 0
    console = Console(highlight=False)
    for finding in findings:
        console.print(f"[bold]{finding.fault}[/bold]: {finding.what}", soft_wrap=True)
        console.print(f"  likely cause: {finding.cause}", soft_wrap=True)
        console.print(f"  next step:    {finding.next}", soft_wrap=True)
        if finding.ids:
            console.print(f"  requests:     {', '.join(finding.ids)}", soft_wrap=True)
    steps = sum(len(table.rows) for table in log.steps.values())
    console.print(
        f"{len(findings)} findings by {len(RULES)} rules over {len(log.requests):,} requests, "
        f"{steps:,} steps, {len(log.headers)} processes"
    )
    return 1 if findings else 0
