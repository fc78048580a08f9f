"""Plots as SVG text: no plotting library, one file that opens anywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 760, 240
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 28, 40
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df")
Points = Sequence[tuple[float, float]]


def lines(title: str, x: str, y: str, series: Sequence[tuple[str, Points]]) -> str:
    """One or more curves over common linear axes; y begins at 0."""
    every = [point for _, points in series for point in points]
    if not every:
        return ""
    frame = _Frame.around(every)
    body = []
    for (name, points), colour in zip(series, COLOURS, strict=False):
        path = " ".join(f"{frame.x(a):.1f},{frame.y(b):.1f}" for a, b in points)
        body.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.3" points="{path}"/>')
        body.append(_legend(name, colour, len(body) // 2))
    return frame.drawn(title, x, y, "".join(body))


def histogram(title: str, x: str, values: Sequence[float], bins: int = 48) -> str:
    """How often values fall in bins of equal ratio: lengths spread over decades."""
    positive = [value for value in values if value > 0]
    if not positive:
        return ""
    low, high = math.log10(min(positive)), math.log10(max(positive))
    span = (high - low) or 1.0
    counts = [0] * bins
    for value in positive:
        counts[min(int((math.log10(value) - low) / span * bins), bins - 1)] += 1
    shares = [count / len(positive) for count in counts]
    frame = _Frame(low, low + span, max(shares))
    width = (WIDTH - LEFT - RIGHT) / bins
    bars = "".join(
        f'<rect x="{frame.x(low + i * span / bins):.1f}" y="{frame.y(share):.1f}" '
        f'width="{max(width - 1, 1):.1f}" height="{frame.y(0) - frame.y(share):.1f}" '
        f'fill="{COLOURS[0]}"/>'
        for i, share in enumerate(shares)
    )
    return frame.drawn(title, x, "share", bars, logarithmic=True)


class _Frame:
    """The plotting area: values to pixels, axes and labels."""

    def __init__(self, low: float, high: float, top: float) -> None:
        self.low, self.high, self.top = low, high if high > low else low + 1, top or 1.0

    @classmethod
    def around(cls, points: Points) -> _Frame:
        xs = [a for a, _ in points]
        return cls(min(xs), max(xs), max(b for _, b in points))

    def x(self, value: float) -> float:
        return LEFT + (value - self.low) / (self.high - self.low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - value / (self.top * 1.05) * (HEIGHT - TOP - BOTTOM)

    def drawn(self, title: str, x: str, y: str, body: str, logarithmic: bool = False) -> str:
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'width="{WIDTH}" height="{HEIGHT}" role="img" font-family="sans-serif" font-size="11">'
            f"<title>{escape(title)}</title>",
            f'<text x="{LEFT}" y="16" font-size="13" font-weight="bold">{escape(title)}</text>',
        ]
        for value in ticks(0, self.top):
            at = self.y(value)
            parts.append(
                f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" '
                f'stroke="#ddd"/><text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">'
                f"{value:g}</text>"
            )
        for value in ticks(self.low, self.high):
            shown = f"{10**value:,.3g}" if logarithmic else f"{value:g}"
            parts.append(
                f'<text x="{self.x(value):.1f}" y="{HEIGHT - BOTTOM + 15}" '
                f'text-anchor="middle">{shown}</text>'
            )
        bottom, middle = HEIGHT - 6, (TOP + HEIGHT - BOTTOM) / 2
        parts.append(f'<text x="{WIDTH / 2}" y="{bottom}" text-anchor="middle">{escape(x)}</text>')
        parts.append(
            f'<text x="14" y="{middle}" text-anchor="middle" '
            f'transform="rotate(-90 14 {middle})">{escape(y)}</text>'
        )
        return "".join([*parts, body, "</svg>"])


def _legend(name: str, colour: str, index: int) -> str:
    at = TOP + 4 + 14 * index
    return (
        f'<text x="{WIDTH - RIGHT - 4}" y="{at}" text-anchor="end" fill="{colour}">'
        f"{escape(name)}</text>"
    )


def ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round values between low and high, both possible."""
    if high <= low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def page(title: str, parts: Sequence[str]) -> str:
    """A self-contained HTML page of parts that are HTML already."""
    style = (
        "body{font-family:sans-serif;max-width:820px;margin:2em auto;color:#1f2328}"
        "table{border-collapse:collapse}td,th{padding:2px 12px 2px 0;text-align:left}"
        "td+td{font-variant-numeric:tabular-nums}svg{display:block;margin:1.2em 0}"
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{style}</style></head><body><h1>{escape(title)}</h1>"
        + "\n".join(parts)
        + "</body></html>\n"
    )


def rows(title: str, pairs: Sequence[tuple[str, str]]) -> str:
    """A table of names and values."""
    body = "".join(f"<tr><th>{escape(a)}</th><td>{escape(b)}</td></tr>" for a, b in pairs)
    return f"<h2>{escape(title)}</h2><table>{body}</table>"
