"""The hardware table: what each device can do and what it costs, each figure with its source.

Rates are the makers' dense peaks; `compute_share` and `bandwidth_share` say how much of them a good
engine reaches. Prices age fastest: an entry of one's own (a TOML file of [[device]] tables, as
`penstock hw measure` writes it) of the same name takes a built-in one's place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from penstock.errors import ConfigError
from penstock.workload import text
from penstock.workload.fields import Problem, Reader, plain, spec

GB, TB, TFLOP = 1e9, 1e12, 1e12
DTYPES = ("fp32", "bf16", "fp16", "int8", "fp8", "fp4")


@dataclass(frozen=True, slots=True)
class Rates:
    """Dense arithmetic by number type; missing: the device has none."""

    fp32: float | None = spec("in fp32", default=None, unit="FLOP/s", above=0)
    bf16: float | None = spec("in bf16", default=None, unit="FLOP/s", above=0)
    fp16: float | None = spec("in fp16", default=None, unit="FLOP/s", above=0)
    int8: float | None = spec("in int8", default=None, unit="operations/s", above=0)
    fp8: float | None = spec("in fp8", default=None, unit="FLOP/s", above=0)
    fp4: float | None = spec("in fp4", default=None, unit="FLOP/s", above=0)

    def of(self, dtype: str) -> float | None:
        """None where the device has no such arithmetic."""
        value: float | None = getattr(self, dtype)
        return value


@dataclass(frozen=True, slots=True)
class Price:
    """USD an hour and device; missing: not sold that way."""

    on_demand: float | None = spec("without commitment", default=None, unit="USD/h", minimum=0)
    reserved: float | None = spec("with a year's commitment", default=None, unit="USD/h", minimum=0)
    spot: float | None = spec("may be taken away", default=None, unit="USD/h", minimum=0)
    source: str = spec("where the prices are from", default="not given")
    date: str = spec("when they were so", default="not given")

    def of(self, kind: str) -> float | None:
        value: float | None = getattr(self, kind)
        return value


PRICES = ("on_demand", "reserved", "spot")


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU, or one CPU machine."""

    name: str = spec("its name")
    kind: str = spec("gpu or cpu", choices=("gpu", "cpu"))
    memory_bytes: float = spec("its memory", unit="bytes", above=0)
    bandwidth: float = spec("of its memory, reading", unit="bytes/s", above=0)
    rates: Rates = spec("its arithmetic")
    price: Price = spec("what it costs")
    source: str = spec("where the figures are from")
    link: float = spec("between two of them, one direction; 0: none", default=0.0,
                       unit="bytes/s", minimum=0)  # fmt: skip
    per_node: int = spec("how many share that link", default=1, minimum=1)
    compute_share: float = spec("of the arithmetic that a prefill reaches", default=0.55, above=0,
                                maximum=1)  # fmt: skip
    bandwidth_share: float = spec("of the bandwidth that a decode reaches", default=0.75, above=0,
                                  maximum=1)  # fmt: skip
    step_s: float = spec("of every step that is neither: host, launches", default=0.0015,
                         unit="seconds", minimum=0)  # fmt: skip

    def problems(self) -> Iterator[Problem]:
        if self.rates == Rates():
            yield Problem("rates", "names no number type.", f"Give one of {', '.join(DTYPES)}.")
        if self.per_node > 1 and not self.link:
            yield Problem("link", "is 0, but per_node is more than 1.", "Give its bandwidth.")

    def ridge(self, dtype: str) -> float | None:
        """Operations per byte at which arithmetic and memory take equally long."""
        rate = self.rates.of(dtype)
        return None if rate is None else rate / self.bandwidth


_NVIDIA = "NVIDIA data sheet, dense rates"
_MERCATUS = "mercatus-ai.com/blog/cloud-gpu-pricing, middle of the specialised clouds' range"
_MODAL = "modal.com/pricing, list price as remembered: check before you rely on it"
_LESS = "; reserved 35% and spot 60% less (middle of packet.ai's and Mercatus' ranges, 2026-06)"


def _price(on_demand: float, source: str, date: str) -> Price:
    reserved, spot = round(on_demand * 0.65, 3), round(on_demand * 0.4, 3)
    return Price(on_demand, reserved, spot, source + _LESS, date)


_SXM = Rates(67 * TFLOP, 989 * TFLOP, 989 * TFLOP, 1979 * TFLOP, 1979 * TFLOP)
BUILT_IN = (
    Device(
        "A100", "gpu", 80 * GB, 2039 * GB,
        Rates(19.5 * TFLOP, 312 * TFLOP, 312 * TFLOP, 624 * TFLOP),
        _price(1.30, _MERCATUS, "2026-05"), f"{_NVIDIA}: A100 80GB SXM", 300 * GB, 8,
    ),
    Device(
        "H100", "gpu", 80 * GB, 3.35 * TB, _SXM,
        _price(3.00, _MERCATUS, "2026-05"), f"{_NVIDIA}: H100 SXM", 450 * GB, 8,
    ),
    Device(
        "H200", "gpu", 141 * GB, 4.8 * TB, _SXM,
        _price(4.00, _MERCATUS, "2026-05"), f"{_NVIDIA}: H200 SXM", 450 * GB, 8,
    ),
    Device(
        "B200", "gpu", 180 * GB, 8 * TB,
        Rates(75 * TFLOP, 2250 * TFLOP, 2250 * TFLOP, 4500 * TFLOP, 4500 * TFLOP, 9000 * TFLOP),
        _price(6.25, _MODAL, "2025"), f"{_NVIDIA}: HGX B200", 900 * GB, 8,
    ),
    Device(
        "L4", "gpu", 24 * GB, 0.3 * TB,
        Rates(30.3 * TFLOP, 121 * TFLOP, 121 * TFLOP, 242 * TFLOP, 242 * TFLOP),
        _price(0.80, _MODAL, "2025"), f"{_NVIDIA}: L4, linked by PCIe 4 x16", 32 * GB, 8,
    ),
    Device(
        "L40S", "gpu", 48 * GB, 0.864 * TB,
        Rates(91.6 * TFLOP, 362 * TFLOP, 362 * TFLOP, 733 * TFLOP, 733 * TFLOP),
        _price(1.95, _MODAL, "2025"), f"{_NVIDIA}: L40S, linked by PCIe 4 x16", 32 * GB, 8,
    ),
    Device(
        "MI300X", "gpu", 192 * GB, 5.3 * TB,
        Rates(163.4 * TFLOP, 1307 * TFLOP, 1307 * TFLOP, 2615 * TFLOP, 2615 * TFLOP),
        _price(2.49, "runpod.io/pricing, as remembered: check before you rely on it", "2025"),
        "AMD data sheet, dense rates: Instinct MI300X", 64 * GB, 8,
    ),
    Device(
        "Zen4-2vCPU", "cpu", 16 * GB, 46 * GB,
        Rates(150e9, 410e9, None, 820e9),
        _price(0.12, "2 vCPUs of a Zen 4 machine, about, as remembered: check", "2025"),
        "measured 2026-11-20 on 2 vCPUs of an AMD EPYC (Zen 4): reads, and GEMMs of torch 2.13",
        compute_share=0.5, bandwidth_share=0.5, step_s=0.0005,
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _File:
    """A file of entries."""

    device: tuple[Device, ...] = spec("devices")


def read_devices(content: str, name: str) -> tuple[Device, ...]:
    """The entries of a TOML or JSON text. Raises ConfigError naming file, line, field and cure."""
    tables, lines = text.parse(content, name)
    reader = Reader(lines)
    made = reader.read(_File, tables)
    if reader.problems:
        told = "\n".join(problem.text(name) for problem in reader.problems)
        raise ConfigError(told, param=reader.problems[0].field)
    devices: tuple[Device, ...] = made.device
    return devices


def write_devices(devices: Iterable[Device]) -> str:
    """TOML that `read_devices` takes."""
    return text.to_toml({"device": [plain(device) for device in devices]})


def table(own: Iterable[Device] = ()) -> dict[str, Device]:
    """Built-in and own entries by name; an own one replaces a built-in one of its name."""
    return {device.name: device for device in (*BUILT_IN, *own)}


def choose(names: Iterable[str], devices: Mapping[str, Device]) -> list[Device]:
    """The named devices, all for no names. Raises ConfigError for one that is unknown."""
    wanted = list(names) or list(devices)
    for name in wanted:
        if name not in devices:
            cause = f"The device {name!r} is unknown."
            raise ConfigError(cause, cure=f"Known: {', '.join(devices)}.", param="hardware")
    return [devices[name] for name in wanted]
