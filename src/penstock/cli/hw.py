"""`penstock hw …`"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Console

from penstock.cli.inputs import read_text, write_text
from penstock.config.option import option
from penstock.report import plan as drawing
from penstock.report.machine import machine_info
from penstock.settings import command
from penstock.sizing.hardware import choose, read_devices, table, write_devices


@dataclass(frozen=True, slots=True)
class ShowOptions:
    names: tuple[str, ...] = option((), "Devices to show", automatic="all", positional=True)
    devices: str | None = option(None, "TOML file with own devices", automatic="none")


@command(own=ShowOptions)
def show(options: ShowOptions) -> None:
    """The hardware table that `penstock plan` chooses from, with the source of every figure."""
    own = (
        read_devices(read_text(options.devices, "--devices"), options.devices)
        if options.devices
        else ()
    )
    Console().print(drawing.hardware(choose(options.names, table(own))))


@dataclass(frozen=True, slots=True)
class MeasureOptions:
    name: str = option("this-machine", "Name of the entry", positional=True)
    device: str = option("auto", "Torch device; `auto` takes a GPU where there is one")
    output: str | None = option(None, "File to write", automatic="the terminal", short="-o")


@command(own=MeasureOptions)
def measure(options: MeasureOptions) -> None:
    """Measure this machine's bandwidth and arithmetic, as an entry for --devices."""
    import torch

    from penstock.engine.measure import measure

    found = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(found if options.device == "auto" else options.device)
    info = machine_info()
    day = datetime.now(UTC).date().isoformat()
    note = f"measured {day} with torch {torch.__version__}, {info['cpu']}, {device}"
    text = write_devices([measure(options.name, device, note)])
    if options.output is None:
        print(text, end="")
    else:
        write_text(options.output, text, "--output")
        print(f"{options.output} written; fill in its price, then: "
              f"penstock plan … --devices {options.output}")  # fmt: skip
