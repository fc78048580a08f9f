"""What the lines of a run say: medians with their range, shares of the limits, ratios, bars.

    python -m benchmarks.cpu.summary [FOLDER]

A ratio is taken within a round, where both sides saw the same machine; its interval is the range
over the rounds, and its lower end is what a bar is compared with. A peer that did not run counts
with its figure in baseline.json times what the machine's limit is today by what it was then
(bandwidth for A, int8 products for the rest), and is marked *.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.cpu.engines import BY_NAME, ENGINES, INT4, INT8, NONE, Engine
from benchmarks.make_checkpoint import COMMON, SHAPES
from penstock.report.stats import median
from penstock.sizing.floor import StepWork
from penstock.sizing.precision import precision
from penstock.sizing.shape import ModelShape, read_shape

Line = dict[str, Any]
RESULTS = Path(__file__).parents[1] / "results" / "cpu"
LINES, SUMMARY, PLOT = "lines.jsonl", "summary.json", "plot.png"
BASELINE = Path(__file__).parent / "baseline.json"
BEGIN, END = "<!-- bench-cpu: begin -->", "<!-- bench-cpu: end -->"
HTTP = "H over HTTP"
QUIET = 0.02
"""share of the machine that others may take before a line counts as disturbed"""
WORKS = ("A", "B", "C", "Dcold", "Dwarm", "H", HTTP)


@dataclass(frozen=True, slots=True)
class Bar:
    """What is to be reached: a work of ours beside the best of the peers of these widths."""

    ours: str
    work: str
    bits: tuple[int, ...]
    """of the peers"""
    ratio: dict[str, float]
    """by shape"""


BARS = (
    Bar(INT8, "A", (8,), {"l135": 1.4, "q06": 1.4}),
    Bar(INT4, "A", (4,), {"l135": 1.3, "q06": 1.3}),
    Bar(NONE, "A", (16,), {"l135": 1.4, "q06": 1.4}),
    Bar(INT8, "B", (4, 8, 16), {"l135": 1.4, "q06": 1.2}),
    Bar(NONE, "B", (16,), {"l135": 1.1, "q06": 1.1}),
    Bar(INT8, "C", (8, 16), {"l135": 1.5, "q06": 1.3}),
    Bar(INT8, "Dcold", (4, 8, 16), {"l135": 1.5}),
    Bar(INT8, "Dwarm", (4, 8, 16), {"l135": 1.5}),
)
HTTP_BAR = 0.92
HOST_BARS = {"l135": 0.15, "q06": 0.05}
BANDWIDTH_BAR = 0.70
"""of the read limit, A in int8 on q06"""


@dataclass(slots=True)
class Spread:
    """A figure over the rounds."""

    values: dict[int, float] = field(default_factory=dict)
    scaled: bool = False
    """not measured: from the baseline"""

    @property
    def median(self) -> float:
        return median(list(self.values.values()))

    @property
    def low(self) -> float:
        return min(self.values.values())

    @property
    def high(self) -> float:
        return max(self.values.values())

    def text(self, digits: int = 0) -> str:
        if self.scaled:
            return f"{self.median:,.{digits}f} *"
        return f"{self.median:,.{digits}f} [{self.low:,.{digits}f}-{self.high:,.{digits}f}]"

    def over(self, other: Spread) -> Spread:
        """Round by round; what is not measured is the same in every round."""
        if other.scaled:
            return Spread({r: value / other.median for r, value in self.values.items()})
        common = self.values.keys() & other.values.keys()
        return Spread({r: self.values[r] / other.values[r] for r in sorted(common)})


class Figures:
    """The lines of a run by shape, engine and work; all rates in tokens/s."""

    def __init__(self, lines: list[Line], baseline: dict[str, Any] | None = None) -> None:
        self.head = lines[0]
        self.baseline = baseline or json.loads(BASELINE.read_text())
        self.failed = [line for line in lines if "failed" in line]
        self.facts = {
            (line["shape"], line["engine"]): line for line in lines if line["kind"] == "engine"
        }
        self.lines = [line for line in lines if line["kind"] == "figure" and "failed" not in line]
        self.limits: dict[tuple[str, str], Spread] = {}
        for line in lines:
            if line["kind"] == "limits":
                for name in self.baseline["limits"]:
                    spread = self.limits.setdefault((line["shape"], name), Spread())
                    spread.values[line["round"]] = line[name]
        self.rates: dict[tuple[str, str, str], Spread] = {}
        for line in self.lines:
            key = (line["shape"], line["engine"], line["work"])
            self.rates.setdefault(key, Spread()).values[line["round"]] = rate(line)
        self.shapes = [shape for shape in SHAPES if any(s == shape for s, _ in self.limits)]

    @property
    def disturbed(self) -> int:
        """Lines during which others took part of the machine."""
        return sum(max(line["steal"], line["foreign"]) > QUIET for line in self.lines)

    def rate(self, shape: str, engine: str, work: str) -> Spread | None:
        """Measured, or for a peer that did not take part from the baseline; else None."""
        found = self.rates.get((shape, engine, work))
        if found is not None:
            return found
        then = self.baseline["figures"].get(shape, {}).get(engine, {}).get(work)
        limit = "bandwidth" if work == "A" else "int8"
        now = self.limits.get((shape, limit))
        took_part = any(key[:2] == (shape, engine) for key in self.rates)
        if then is None or now is None or took_part:
            return None
        return Spread({0: then * now.median / self.baseline["limits"][limit]}, scaled=True)

    def limit_share(self, shape: str, engine: Engine, work: str) -> Spread | None:
        """A: of the tokens/s that reading the weights allows; B: of the products' rate."""
        rates = self.rates.get((shape, engine.name, work))
        limit = self.limits.get((shape, "bandwidth" if work == "A" else engine.arithmetic))
        if rates is None or limit is None or work not in "AB":
            return None
        each = token_bytes(shape, engine) if work == "A" else token_operations(shape)
        return Spread({r: value * each for r, value in rates.values.items()}).over(limit)

    def sums(self, shape: str, engine: str, work: str, name: str) -> list[float]:
        """A figure that Penstock adds to its lines."""
        key = (shape, engine, work)
        return [
            line[name]
            for line in self.lines
            if (line["shape"], line["engine"], line["work"]) == key and name in line
        ]


def rate(line: Line) -> float:
    """Tokens/s: made after the first one (A), read (B), made (the others)."""
    if line["work"] == "A":
        return float((line["tokens"] - 1) / (line["seconds"] - line["first_s"]))
    if line["work"] == "B":
        return float(line["input"] / line["seconds"])
    return float(line["tokens"] / line["seconds"])


@cache
def model_shape(name: str) -> ModelShape:
    return read_shape(json.dumps({"model_type": "llama"} | COMMON | SHAPES[name]), name)


def token_bytes(shape: str, engine: Engine) -> float:
    """Of weights that a token alone reads."""
    model = model_shape(shape)
    head = model.vocab_size * model.hidden_size
    layers = model.active_params - head
    return layers * engine.bytes_per_weight[0] + head * engine.bytes_per_weight[1]


def bits_per_weight(shape: str, engine: Engine) -> float:
    """Embedding and head included; a tied table counts once."""
    return 8 * token_bytes(shape, engine) / model_shape(shape).active_params


def token_operations(shape: str) -> float:
    """Of each token of a prompt of 1,024."""
    work = StepWork(model_shape(shape), precision("bf16")).of([0], [1024], 1)
    return work.operations / 1024


@dataclass(frozen=True, slots=True)
class Verdict:
    shape: str
    what: str
    ours: str
    other: str
    """the best peer, or the limit"""
    ratio: Spread
    bar: float
    least: bool = True
    """whether the bar is a lower bound"""

    @property
    def holds(self) -> bool:
        return self.ratio.low >= self.bar if self.least else self.ratio.high < self.bar


def verdicts(figures: Figures) -> list[Verdict]:
    found = []
    for shape in figures.shapes:
        for bar in BARS:
            if shape in bar.ratio and (verdict := _against_peers(figures, shape, bar)):
                found.append(verdict)
        http, offline = (figures.rates.get((shape, INT8, work)) for work in (HTTP, "H"))
        if http and offline:
            text = offline.text()
            what = "16 streams over HTTP"
            found.append(Verdict(shape, what, http.text(), text, http.over(offline), HTTP_BAR))
        share = figures.limit_share(shape, BY_NAME[INT8], "A")
        if share and shape == "q06":
            limit = f"read limit {figures.limits[shape, 'bandwidth'].median / 1e9:.1f} GB/s"
            found.append(Verdict(shape, "A, int8", "", limit, share, BANDWIDTH_BAR))
        for work, streams in (("A", 1), ("H", 16)):
            host = figures.sums(shape, INT8, work, "host_share")
            if host and shape in HOST_BARS:
                spread, what = Spread(dict(enumerate(host))), f"host share, {streams} streams"
                bar_ = HOST_BARS[shape]
                found.append(Verdict(shape, what, "", "", spread, bar_, least=False))
    return found


def _against_peers(figures: Figures, shape: str, bar: Bar) -> Verdict | None:
    ours = figures.rates.get((shape, bar.ours, bar.work))
    rivals = [e for e in ENGINES if e.peer and e.bits in bar.bits]
    rates = [(e.name, r) for e in rivals if (r := figures.rate(shape, e.name, bar.work))]
    if ours is None or not rates:
        return None
    name, best = max(rates, key=lambda pair: pair[1].median)
    what = f"{bar.work}, {bar.ours.removeprefix('Penstock ')}"
    other = f"{name} {best.text()}"
    return Verdict(shape, what, ours.text(), other, ours.over(best), bar.ratio[shape])


# Texts


def markdown(figures: Figures) -> str:
    machine = figures.head["machine"]
    parts = [
        f"{machine['date'][:10]}, {machine['cpu']} ({machine['cpu_id']}), {machine['cores']} cores,"
        f" {machine['memory_bytes'] / 2**30:.0f} GiB; `{figures.head['command']}`. Tokens/s, median"
        " [range] of interleaved rounds; % of what the weights' bytes (A) or their products (B)"
        " allow at the limits measured in the same rounds. * not in this run: an earlier figure,"
        " scaled."
    ]
    for shape in figures.shapes:
        parts += [_limits(figures, shape), _rates(figures, shape), _roofline(figures, shape)]
    parts.append(_bars(verdicts(figures)))
    if figures.disturbed:
        parts.append(
            f"{figures.disturbed} of {len(figures.lines)} lines saw more than {QUIET:.0%} of other"
            " load or steal."
        )
    parts += [f"Failed: {line['engine']} on {line['shape']}." for line in figures.failed]
    return "\n\n".join(part for part in parts if part)


def _limits(figures: Figures, shape: str) -> str:
    units = {"bandwidth": ("reads", "GB/s"), "bf16": ("bf16", "GFLOP/s"), "int8": ("int8", "GOP/s")}
    found = [
        f"{units[name][0]} {Spread({r: v / 1e9 for r, v in spread.values.items()}).text()} "
        f"{units[name][1]}"
        for (of, name), spread in figures.limits.items()
        if of == shape
    ]
    return f"**{shape}**: limits " + ", ".join(found)


def _rates(figures: Figures, shape: str) -> str:
    works = [work for work in WORKS if any((shape, e.name, work) in figures.rates for e in ENGINES)]
    rows = [["engine", "bits a weight", *works], ["---"] * (2 + len(works))]
    for engine in ENGINES:
        cells = [_cell(figures, shape, engine, work) for work in works]
        if any(cells):
            rows.append([engine.name, f"{bits_per_weight(shape, engine):.2f}", *cells])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _cell(figures: Figures, shape: str, engine: Engine, work: str) -> str:
    found = figures.rate(shape, engine.name, work)
    share = figures.limit_share(shape, engine, work)
    text = found.text() if found else ""
    return f"{text}, {share.median:.0%}" if share else text


def _roofline(figures: Figures, shape: str) -> str:
    """Penstock's steps against the floor of what they moved and computed, as it counts them."""
    columns = ["Penstock's steps", "MB", "G operations", "floor, ms", "measured, ms"]
    rows = [[*columns, "floor / measured", "host share"], ["---"] * 7]
    for engine in (engine for engine in ENGINES if not engine.peer):
        for work in WORKS:
            sums = [
                figures.sums(shape, engine.name, work, name)
                for name in ("steps", "bytes_moved", "operations", "floor_s", "step_s")
            ]
            if not sums[0]:
                continue
            steps, moved, operations, floor_s, step_s = (sum(values) for values in sums)
            host = figures.sums(shape, engine.name, work, "host_share")
            rows.append(
                [
                    f"{engine.name} {work}",
                    f"{moved / steps / 1e6:.0f}",
                    f"{operations / steps / 1e9:.2f}",
                    f"{floor_s / steps * 1e3:.2f}",
                    f"{step_s / steps * 1e3:.2f}",
                    f"{floor_s / step_s:.0%}",
                    f"{median(host):.1%}" if host else "-",
                ]
            )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) if len(rows) > 2 else ""


def _bars(found: list[Verdict]) -> str:
    rows = [["shape", "what", "Penstock", "beside", "ratio", "bar", ""], ["---"] * 7]
    for v in found:
        bar = f"{'≥' if v.least else '<'} {v.bar:g}"
        ok = "met" if v.holds else "missed"
        rows.append([v.shape, v.what, v.ours, v.other, v.ratio.text(2), bar, ok])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def insert(text: str, table: str) -> str:
    """The text with the table between the markers. Raises ValueError where they are not."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no {BEGIN} … {END}")
    return f"{before}{begin}\n{table}\n{end}{after}"


def to_dict(figures: Figures) -> dict[str, Any]:
    """All that the table shows, as plain data."""
    return {
        "head": figures.head,
        "engines": list(figures.facts.values()),
        "limits": [
            {"shape": s, "limit": n, **asdict(spread)} for (s, n), spread in figures.limits.items()
        ],
        "rates": [
            {"shape": s, "engine": e, "work": w, "median": spread.median, **asdict(spread)}
            for (s, e, w), spread in figures.rates.items()
        ],
        "verdicts": [asdict(v) | {"holds": v.holds} for v in verdicts(figures)],
        "failed": figures.failed,
        "disturbed": figures.disturbed,
    }


def write(lines: list[Line], folder: Path, readme: Path | None) -> None:
    """The summary, the plot, and the table in the README."""
    from benchmarks.cpu.plot import draw

    figures = Figures(lines)
    table = markdown(figures)
    (folder / SUMMARY).write_text(json.dumps(to_dict(figures), indent=1) + "\n")
    (folder / "table.md").write_text(table + "\n")
    draw(figures, folder / PLOT)
    if readme is not None:
        readme.write_text(insert(readme.read_text(), table))
    print(table)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS
    lines = [json.loads(line) for line in (folder / LINES).read_text().splitlines()]
    write(lines, folder, None)


if __name__ == "__main__":
    main()
