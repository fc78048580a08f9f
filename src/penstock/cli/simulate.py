"""`penstock simulate`"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, dataclass, replace
from pathlib import Path

from rich.console import Console

from penstock.cli.inputs import (
    Load,
    load_workload,
    read_log,
    read_model,
    read_text,
    write_text,
)
from penstock.config.option import option
from penstock.core.autoscaler import Scaling
from penstock.errors import ConfigError
from penstock.report.machine import command_line
from penstock.report.run import Run, Summary, from_json, summarise, to_json
from penstock.report.run_page import page
from penstock.report.run_tables import errors_of, headline, render
from penstock.settings import Settings, command
from penstock.sim.calibrate import from_log
from penstock.sim.costs import FittedCosts, read_costs
from penstock.sim.engine import EngineSpec
from penstock.sim.fleet import Fleet, FleetSpec
from penstock.sim.report import as_run, usage_rows
from penstock.sim.setup import engine_spec
from penstock.sizing.hardware import Device, choose, read_devices, table
from penstock.sizing.precision import precision
from penstock.workload.sessions import TimedRequest, stretch


@dataclass(frozen=True, slots=True)
class SimulateOptions:
    file: str = option(MISSING, "The workload file", positional=True)
    model: str = option(
        "demo", "`demo`, a model's folder, or its config.json; only sizes are read from it"
    )
    hardware: str = option("L4", "Device of each rank, by its name in `penstock hw show`")
    devices: str | None = option(
        None, "TOML file with own devices, as `penstock hw measure` writes", automatic="none"
    )
    precision: str = option("bf16", "Number type of the weights")
    calibrate: str | None = option(
        None,
        "What steps cost: a folder of a server's logs, or a file that --save-costs wrote",
        automatic="the roofline of --hardware",
    )
    save_costs: str | None = option(None, "File for fitted costs", automatic="none is written")
    against: str | None = option(
        None,
        "A measured run (--json of `penstock bench run`): the same requests are simulated, and the"
        " errors are printed",
        automatic="none",
    )
    start_s: float = option(0.0, "Begin, from the window's start", unit="seconds")
    duration_s: float = option(600.0, "Length of the stretch", unit="seconds")
    warm_up_s: float = option(0.0, "Not counted at the begin", unit="seconds")
    cool_down_s: float = option(0.0, "Not counted at the end", unit="seconds")
    seed: int = option(0, "Seed of the requests and of faults")
    max_model_len: int | None = option(
        None, "Context length", unit="tokens", automatic="the model's"
    )
    replicas: int = option(1, "Replicas at the begin", unit="replicas")
    max_replicas: int | None = option(
        None, "Most replicas of an autoscaled fleet", automatic="the number stays"
    )
    min_replicas: int = option(1, "Fewest replicas", unit="replicas")
    buffer: int = option(0, "Replicas kept beyond what the load needs", unit="replicas")
    target_concurrency: float = option(8.0, "Open requests that a replica is meant for")
    scale_up_window_s: float = option(
        0.0, "How long more must be wanted before it starts", unit="seconds"
    )
    scale_down_window_s: float = option(
        60.0, "How long fewer must be wanted before it stops", unit="seconds"
    )
    intake_s: float = option(0.0, "From the client to the engine's queue", unit="seconds")
    max_waiting: int | None = option(
        None, "Requests that may queue at a replica", automatic="without end"
    )
    json: str | None = option(None, "File for the run as JSON", automatic="none is written")
    html: str | None = option(None, "File for a page with plots", automatic="none is written")


@command("engine", own=SimulateOptions)
def simulate(settings: Settings, options: SimulateOptions) -> int:
    """Run a workload on the production scheduler in virtual time: one engine or a fleet.

    Exit code 4 when a promise of the workload is not kept.
    """
    load = load_workload(options.file)
    measured = None
    if options.against:
        measured = from_json(read_text(options.against, "--against"), options.against)
        options = _as_measured(options, measured)
    fleet_spec, hour_usd = _fleet(settings, options, load, measured)
    requests = _requests(load, options, measured)
    fleet = Fleet(fleet_spec, requests)
    fleet.run()
    begin_s = measured.begin_s if measured else options.warm_up_s
    end_s = measured.end_s if measured else options.duration_s - options.cool_down_s
    about = {"model": options.model, "hardware": options.hardware, "command": command_line()}
    origin = {"workload": options.file, "seed": options.seed, "start_s": options.start_s,
              "duration_s": options.duration_s}  # fmt: skip
    run = as_run(fleet, load.workload, begin_s, end_s, origin, about)
    return _tell(run, fleet, hour_usd, options, measured)


def _tell(
    run: Run, fleet: Fleet, hour_usd: float | None, options: SimulateOptions, measured: Run | None
) -> int:
    summary = summarise(run)
    console = Console()
    usage = usage_rows(fleet, hour_usd)
    console.print(render(run, summary, usage))
    if measured is not None:
        console.print(errors_of(summary, headline(summarise(measured))))
    if options.json:
        write_text(options.json, to_json(run, summary), "--json")
    if options.html:
        title = f"Simulation of {Path(options.file).name}"
        write_text(options.html, page(run, summary, title, usage), "--html")
        print(f"{options.html} written")
    return _exit_code(summary)


def _exit_code(summary: Summary) -> int:
    return 0 if summary.verdict is None or summary.verdict.passed else 4


def _as_measured(options: SimulateOptions, measured: Run) -> SimulateOptions:
    """The stretch and seed of the measured run, and its time from client to engine."""
    load = measured.load
    return replace(
        options,
        seed=load.get("seed", options.seed),
        start_s=load.get("start_s", options.start_s),
        duration_s=load.get("duration_s", options.duration_s),
    )


def _requests(load: Load, options: SimulateOptions, measured: Run | None) -> Iterator[TimedRequest]:
    found = stretch(load.requests(options.seed), options.start_s, options.duration_s)
    if measured is None:
        return found
    return _scaled(found, float(measured.load.get("speed", 1.0)))


def _last_due(options: SimulateOptions, measured: Run | None) -> float:
    """The stretch's end, in the time of the run."""
    return options.duration_s / float(measured.load.get("speed", 1.0) if measured else 1.0)


def _scaled(requests: Iterable[TimedRequest], speed: float) -> Iterator[TimedRequest]:
    for request in requests:
        yield replace(request, at_s=request.at_s / speed)


def _fleet(
    settings: Settings, options: SimulateOptions, load: Load, measured: Run | None
) -> tuple[FleetSpec, float | None]:
    own = (
        read_devices(read_text(options.devices, "--devices"), options.devices)
        if options.devices
        else ()
    )
    (device,) = choose([options.hardware], table(own))
    engine = _engine(settings, options, device)
    scaling = None
    if options.max_replicas is not None:
        scaling = Scaling(
            options.min_replicas, options.max_replicas, options.buffer,
            options.target_concurrency, options.scale_up_window_s, options.scale_down_window_s,
        )  # fmt: skip
    workload = load.workload
    faults = tuple(
        replace(fault, at_s=fault.at_s - options.start_s)
        for fault in workload.faults
        if options.start_s <= fault.at_s < options.start_s + options.duration_s
    )
    spec = FleetSpec(
        engine, options.replicas, scaling, workload.start.budget_s, options.intake_s,
        options.max_waiting, workload.overload, faults, concurrency=options.target_concurrency,
        last_due_s=_last_due(options, measured),
        keep_gaps=options.replicas == 1 and scaling is None, seed=options.seed,
    )  # fmt: skip
    price = device.price.on_demand
    ranks = settings.config.engine.tensor_parallel_size
    return spec, None if price is None else price * ranks


def _engine(settings: Settings, options: SimulateOptions, device: Device) -> EngineSpec:
    costs = _costs(options)
    shape = read_model(options.model)
    if options.save_costs:
        if costs is None:
            cause = "--save-costs has nothing to save without --calibrate."
            raise ConfigError(cause, cure="Give both.", param="save_costs")
        text = json.dumps(costs.to_dict(), indent=2) + "\n"
        write_text(options.save_costs, text, "--save-costs")
    config = settings.config.engine
    return engine_spec(
        config, shape, device, precision(options.precision), options.max_model_len, costs
    )


def _costs(options: SimulateOptions) -> FittedCosts | None:
    if options.calibrate is None:
        return None
    path = Path(options.calibrate)
    if not path.is_dir():
        return read_costs(read_text(options.calibrate, "--calibrate"), options.calibrate)
    return from_log(record for _, _, record in read_log(options.calibrate, "calibrate"))
