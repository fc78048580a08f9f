"""The figures of a run as a picture: a panel a shape and work, a bar an engine."""

from __future__ import annotations

from pathlib import Path

from benchmarks.cpu.engines import ENGINES
from benchmarks.cpu.summary import WORKS, Figures

OURS = "#1f6feb"
THEIRS = {4: "#9ec5ab", 8: "#b9b1d6", 16: "#c9c9c9"}
"""by bits"""
TITLES = {
    "A": "A: decode alone",
    "B": "B: prefill of 1,024",
    "C": "C: 32 at once",
    "Dcold": "D: shared prefix, cold",
    "Dwarm": "D: shared prefix, warm",
}


def draw(figures: Figures, path: Path) -> None:
    """Write the PNG. Bars are medians, whiskers the range over the rounds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    works = [w for w in WORKS if w in TITLES]
    works = [w for w in works if any(key[2] == w for key in figures.rates)]
    shapes = figures.shapes
    picture = Figure(figsize=(4.2 * len(works), 3.4 * len(shapes)), layout="constrained")
    FigureCanvasAgg(picture)
    panels = picture.subplots(len(shapes), len(works), squeeze=False)
    for row, shape in zip(panels, shapes, strict=True):
        for panel, work in zip(row, works, strict=True):
            bars = [
                (engine, spread)
                for engine in reversed(ENGINES)
                if (spread := figures.rate(shape, engine.name, work)) is not None
            ]
            panel.spines[["top", "right"]].set_visible(False)
            panel.tick_params(labelsize=7)
            if not bars:
                panel.set_axis_off()
                continue
            panel.set_title(f"{shape}  {TITLES[work]}", fontsize=9, loc="left")
            middles = [spread.median for _, spread in bars]
            below = [spread.median - spread.low for _, spread in bars]
            above = [spread.high - spread.median for _, spread in bars]
            colours = [THEIRS[engine.bits] if engine.peer else OURS for engine, _ in bars]
            names = [engine.name + (" *" if spread.scaled else "") for engine, spread in bars]
            drawn = panel.barh(
                names, middles, xerr=[below, above], color=colours, ecolor="#555555", capsize=2
            )
            labels = [f"{middle:,.0f}" for middle in middles]
            panel.bar_label(drawn, labels, fontsize=7, padding=4)
            panel.margins(x=0.18)
            panel.set_xlabel("tokens/s", fontsize=7)
    picture.suptitle(
        f"{figures.head['machine']['cpu']}, {figures.head['machine']['cores']} cores, "
        f"{figures.head['machine']['date'][:10]}   (* not in this run: an earlier figure, scaled)",
        fontsize=8,
    )
    picture.savefig(path, dpi=110)
