"""Lines over one axis as an SVG picture, which browsers open and pages can hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

COLOURS = ("#0b63c4", "#c2410c", "#15803d", "#7c3aed", "#b0126b", "#5b5b5b")


@dataclass(frozen=True)
class Line:
    """Points (x, y), drawn from the first to the last; pale: in the background, without a name."""

    name: str
    points: Sequence[tuple[float, float]]
    pale: bool = False


def line_chart(
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    log_x: bool = False,
    marks: Sequence[tuple[float, str]] = (),
    y_range: tuple[float, float] | None = None,
    width: int = 720,
    height: int = 420,
) -> str:
    """The picture; `marks` are upright lines at some x, with a word each.

    The y axis reaches over the points, or over `y_range`; what lies beyond is cut off.
    """
    xs = [x for line in lines for x, _ in line.points] + [x for x, _ in marks]
    ys = list(y_range or [y for line in lines for _, y in line.points])
    to_axis = math.log10 if log_x else float
    x_ticks = _decades(min(xs), max(xs)) if log_x else _ticks(min(xs), max(xs))
    y_ticks = _ticks(min(ys), max(ys))
    low, high = to_axis(min(*xs, *x_ticks)), to_axis(max(*xs, *x_ticks))
    bottom, top = min(*ys, *y_ticks), max(*ys, *y_ticks)
    left, right, above, below = 64, 16, 34, 48

    def place(x: float, y: float) -> tuple[float, float]:
        across = (to_axis(x) - low) / ((high - low) or 1)
        up = (y - bottom) / ((top - bottom) or 1)
        return left + across * (width - left - right), height - below - up * (
            height - above - below
        )

    parts = ['<rect width="100%" height="100%" fill="#ffffff"/>']
    for x in x_ticks:
        at, _ = place(x, bottom)
        parts.append(f'<path d="M{at:.1f} {above}V{height - below}" stroke="#e4e4e4"/>')
        parts.append(_text(at, height - below + 18, f"{x:g}", "middle"))
    for y in y_ticks:
        _, at = place(low, y) if not log_x else place(10**low, y)
        parts.append(f'<path d="M{left} {at:.1f}H{width - right}" stroke="#e4e4e4"/>')
        parts.append(_text(left - 8, at + 4, f"{y:g}", "end"))
    parts.append(_text((left + width - right) / 2, height - 8, x_label, "middle"))
    middle = (above + height - below) / 2
    turned = f' transform="rotate(-90 16 {middle:.1f})"'
    parts.append(_text(16, middle, y_label, "middle", turned))
    for i, (x, word) in enumerate(marks):
        at, _ = place(x, bottom)
        parts.append(
            f'<path d="M{at:.1f} {above}V{height - below}" stroke="#222" stroke-dasharray="4 4"/>'
        )
        near_end = at > width - 170
        at += -6 if near_end else 6
        parts.append(_text(at, above + 14 + 16 * i, word, "end" if near_end else "start"))
    clip = f'<clipPath id="area"><rect x="{left}" y="{above}" width="{width - left - right}" '
    parts.append(f'{clip}height="{height - above - below}"/></clipPath>')
    key, number = left, 0
    for line in lines:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line.points))
        colour = "#b9c6d8" if line.pale else COLOURS[number % len(COLOURS)]
        style = f'fill="none" stroke="{colour}" stroke-width="{1 if line.pale else 2.2}"'
        parts.append(f'<polyline points="{path}" {style} clip-path="url(#area)"/>')
        if line.pale:
            continue
        number += 1
        parts.append(f'<path d="M{key} 16h18" stroke="{colour}" stroke-width="3"/>')
        parts.append(_text(key + 24, 20, line.name, "start"))
        key += 44 + 7 * len(line.name)
    label = escape(f"{y_label} over {x_label}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="system-ui, sans-serif" font-size="13" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg>\n"
    )


def _text(x: float, y: float, text: str, anchor: str, more: str = "") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#333"{more}>'
        f"{escape(text)}</text>"
    )


def _ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Round numbers, about `count`, from at most `low` to at least `high`."""
    span = (high - low) or abs(high) or 1.0
    raw = span / (count - 1)
    unit = 10.0 ** math.floor(math.log10(raw))
    step = unit * next(m for m in (1, 2, 2.5, 5, 10) if m * unit >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Powers of ten from at most `low` to at least `high`."""
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    return [10.0**k for k in range(first, max(last, first + 1) + 1)]
