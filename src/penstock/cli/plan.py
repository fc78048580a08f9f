"""`penstock plan`"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import MISSING, dataclass, replace
from pathlib import Path

from rich.console import Console

from penstock.cli.inputs import load_workload, read_model, read_text, write_text
from penstock.config.option import option
from penstock.config.tree import all_options
from penstock.errors import ConfigError
from penstock.registry import FORMATS
from penstock.report import plan as drawing
from penstock.settings import command
from penstock.sizing.choice import Candidate, read_scored, smallest_passing
from penstock.sizing.command import lacks, serve_command
from penstock.sizing.demand import rates_of, waits
from penstock.sizing.hardware import PRICES, choose, read_devices, table
from penstock.sizing.precision import PRECISIONS, precision
from penstock.sizing.shape import ModelShape
from penstock.sizing.sizer import Answer, Scope, size
from penstock.workload.definition import Workload

DEGREES = (1, 2, 4, 8)
KERNELS = {"cpu": FORMATS.names, "gpu": ()}
"""Formats of quantized weights that have kernels, by kind of device."""


@dataclass(frozen=True, slots=True)
class PlanOptions:
    file: str = option(MISSING, "The workload file", positional=True)
    model: str = option(
        "demo", "`demo`, a model's folder, or its config.json; only sizes are read from it"
    )
    models: str | None = option(
        None,
        "TOML file of [[model]] tables (config, scores) in place of --model: planned is the"
        " smallest that passes the workload's quality gates",
        automatic="none",
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
    model, shape = _choose_model(options, load.workload)
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
    _tell_command(answer, load.workload, shape, model)
    return 0


def _choose_model(options: PlanOptions, workload: Workload) -> tuple[str, ModelShape]:
    """Name and shape of the model to plan for; with --models by its scores, and why."""
    if options.models is None:
        return options.model, read_model(options.model)
    folder = Path(options.models).parent
    scored = read_scored(read_text(options.models, "--models"), options.models)
    candidates = [Candidate(read_model(str(folder / one.config)), one) for one in scored]
    chosen, reasons = smallest_passing(candidates, workload.quality)
    for reason in reasons:
        print(f"Not good enough: {reason}")
    print(f"Smallest that passes the quality gates: {chosen.scored.config}")
    return str(folder / chosen.scored.config), chosen.shape


def _refuse(console: Console, answer: Answer, top: int) -> int:
    console.print(drawing.refusals(answer, top))
    nearest = answer.refusals[0] if answer.refusals else None
    why = f"Nearest is {nearest.setup.name}: {nearest.reason}." if nearest else ""
    print(f"No plan keeps every promise of the workload. {why}", file=sys.stderr)
    return 3


def _tell_command(answer: Answer, workload: Workload, shape: ModelShape, model: str) -> None:
    best = answer.plans[0]
    missing = lacks(best.setup, KERNELS, {option.name for option in all_options()})
    if missing:
        print(f"The best plan cannot be run: {missing}.")
        return
    folder = str(Path(model).parent) if Path(model).name == "config.json" else model
    lengths = workload.lengths
    most = lengths.input_tokens.quantile(1) + lengths.output_tokens.quantile(1)
    longest = min(math.ceil(most), shape.max_positions, best.memory.kv_tokens)
    print(f"Each of the {best.total} replicas, on {best.setup.devices} x {best.setup.device.name}:")
    print(f"  {serve_command(best, folder, longest)}")


def _scope(options: PlanOptions) -> Scope:
    own = (
        read_devices(read_text(options.devices, "--devices"), options.devices)
        if options.devices
        else ()
    )
    flags = {option.name for option in all_options()}
    scope = Scope(
        choose(options.hardware, table(own)),
        [precision(name) for name in options.precision or PRECISIONS],
        DEGREES,
        (1, 2),
        options.headroom,
        options.price,
    )
    if options.hypothetical:
        return scope
    return replace(scope, lacks=lambda setup: lacks(setup, KERNELS, flags))
