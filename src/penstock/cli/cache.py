"""`penstock cache …`: the prepared weights that starts have left."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Console

from penstock.config.option import option
from penstock.report.tables import table
from penstock.settings import command

FOLDER = option(
    None,
    "The folder, as it was given to the start",
    automatic="penstock/weights in $XDG_CACHE_HOME, or else in ~/.cache",
)


@dataclass(frozen=True, slots=True)
class ShowOptions:
    weights_cache_dir: str | None = FOLDER
    verify: bool = option(False, "Also read every byte and compare it with its check")


@command(own=ShowOptions)
def show(options: ShowOptions) -> int:
    """Prepared weights, the latest used first. Exit code 1 when one is damaged."""
    from penstock.engine.pack import DamagedError, Pack  # torch is imported here
    from penstock.engine.packs import cache_folder, packs

    place = cache_folder(options.weights_cache_dir)
    rows, damaged = [], 0
    for path in reversed(packs(place)):
        status = path.stat()
        used = datetime.fromtimestamp(status.st_mtime, UTC).isoformat(" ", "minutes")
        cells = [f"{status.st_size / 2**20:.1f}", used[:16]]
        try:
            pack = Pack(path)
            if options.verify:
                pack.verify()
            about = pack.about
            rank = "{}/{}, stage {}/{}".format(*about["rank"])
            cells += [about["model"], about["quantization"], about["dtype"], rank]
        except (DamagedError, OSError) as error:
            damaged += 1
            cells += [f"damaged: {error}", "", "", ""]
        rows.append(tuple(cells))
    columns = ("MiB", "last used, UTC", "model", "quantization", "dtype", "rank")
    Console().print(table(str(place), columns, rows))
    return 1 if damaged else 0


@dataclass(frozen=True, slots=True)
class ClearOptions:
    weights_cache_dir: str | None = FOLDER


@command(own=ClearOptions)
def clear(options: ClearOptions) -> None:
    """Delete all prepared weights; engines that use them go on."""
    from penstock.engine.packs import cache_folder, clear

    place = cache_folder(options.weights_cache_dir)
    print(f"{clear(place) / 2**20:.1f} MiB freed in {place}")
