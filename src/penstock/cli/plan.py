"""`penstock plan`"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import MISSING, dataclass
from pathlib import Path

from rich.console import Console

import penstock
from penstock.cli.inputs import load_workload, read_text, write_text
from penstock.config.option import option
from penstock.config.tree import all_options
from penstock.errors import ConfigError
from penstock.registry import FORMATS
from penstock.report import plan as drawing
from penstock.settings import command
from penstock.sizing.command import DTYPES, lacks, serve_command
from penstock.sizing.demand import rates_of, waits
from penstock.sizing.hardware import PRICES, choose, read_devices, table
from penstock.sizing.precision import PRECISIONS, precision
from penstock.sizing.shape import ModelShape, read_shape
from penstock.sizing.sizer import Answer, Scope, Setup, size
from penstock.workload.definition import Workload

DEGREES = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class PlanOptions:
    file: str = option(MISSING, "The workload file", positional=True)
    model: str = option(
        "demo", "`demo`, a model's folder, or its config.json; only sizes are read from it"
    )
    hardware: tuple[str, ...] = option(
        (), "Devices to choose from (repeatable)", automatic="all of `penstock hw show`"
    )
    devices: str | None = option(
        None, "TOML file with own devices, as `penstock hw measure` writes", automatic="none"
    )
    precision: tuple[str, ...] = option(
        (), "Number types to choose from (repeatable)", automatic="all that this version runs"
    )
    headroom: float = option(0.8, "Part of a replica's capacity to plan with")
    price: str = option("on_demand", "Which price counts", choices=PRICES)
    hypothetical: bool = option(
        False, "Also number types and parallel replicas that this version cannot run yet"
    )
    top: int = option(5, "Plans to show")
    json: str | None = option(None, "File for all plans as JSON", automatic="none is written")


@command(own=PlanOptions)
def plan(options: PlanOptions) -> int:
    """Size a deployment for a workload: devices, precision, replicas, cost, and its command.

    Forecasts by roofline and queueing, not measurements. Exit code 3 when nothing is feasible.
    """
    if not 0 < options.headroom <= 1:
        raise ConfigError("--headroom must be above 0 and at most 1.", param="headroom")
    load = load_workload(options.file)
    shape = read_model(options.model)
    measured = load.rates() if load.trace is not None else ()
    rates = rates_of(load.workload, measured)
    answer = size(load.workload, shape, rates, _scope(options))
    console = Console()
    console.print(f"{shape.name}: {shape.num_params / 1e9:.3g} billion weights; "
                  f"{rates.mean:.3g} calls/s on average, {rates.peak:.3g} at peak")  # fmt: skip
    console.print(f"{answer.regime}: {answer.why}")
    if options.json:
        write_text(options.json, json.dumps(drawing.to_dict(answer), indent=2) + "\n", "--json")
    if not answer.plans:
        return _refuse(console, answer, options.top)
    console.print(drawing.ranking(answer, options.top))
    note = ", spread over its time limit" if waits(load.workload) else ""
    console.print(drawing.details(answer.plans[0], note))
    _tell_command(answer, load.workload, shape, options.model)
    return 0


def _refuse(console: Console, answer: Answer, top: int) -> int:
    console.print(drawing.refusals(answer, top))
    nearest = answer.refusals[0] if answer.refusals else None
    why = f"Nearest is {nearest.setup.name}: {nearest.reason}." if nearest else ""
    print(f"No plan keeps every promise of the workload. {why}", file=sys.stderr)
    return 3


def _tell_command(answer: Answer, workload: Workload, shape: ModelShape, model: str) -> None:
    best = answer.plans[0]
    missing = lacks(best.setup, FORMATS.names, _flags())
    if missing:
        print(f"This version cannot run the best plan yet: {missing}.")
        return
    lengths = workload.lengths
    most = lengths.input_tokens.quantile(1) + lengths.output_tokens.quantile(1)
    longest = min(math.ceil(most), shape.max_positions, best.memory.kv_tokens)
    print(f"Each of the {best.total} replicas, on {best.setup.devices} x {best.setup.device.name}:")
    print(f"  {serve_command(best, model, longest)}")


def _flags() -> set[str]:
    return {option.name for option in all_options()}


def _scope(options: PlanOptions) -> Scope:
    own = (
        read_devices(read_text(options.devices, "--devices"), options.devices)
        if options.devices
        else ()
    )
    devices = choose(options.hardware, table(own))
    names = options.precision or tuple(PRECISIONS)
    wanted = [precision(name) for name in names]
    if options.hypothetical:
        return Scope(devices, wanted, DEGREES, (1, 2), options.headroom, options.price)
    probe = [Setup(devices[0], one, 1, 1, 0) for one in wanted]
    kept = [setup.precision for setup in probe if not lacks(setup, FORMATS.names, _flags())]
    if not kept:
        cause = f"This version runs none of {', '.join(names)}."
        known = [*DTYPES, *(name for name in FORMATS.names if name in PRECISIONS)]
        cure = f"Use one of {', '.join(known)}, or --hypothetical."
        raise ConfigError(cause, cure=cure, param="precision")
    tensor = DEGREES if "tensor_parallel_size" in _flags() else (1,)
    pipeline = (1, 2) if "pipeline_parallel_size" in _flags() else (1,)
    return Scope(devices, kept, tensor, pipeline, options.headroom, options.price)


def read_model(name: str) -> ModelShape:
    """The shape of `demo`, of a folder with a config.json, or of such a file."""
    if name == "demo":
        path = Path(penstock.__file__).parent / "demo" / "model" / "config.json"
    else:
        path = Path(name)
        path = path / "config.json" if path.is_dir() else path
    return read_shape(read_text(str(path), "--model"), str(path))
