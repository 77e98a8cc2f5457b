"""Charts as inline SVG, in the colours of the style sheet."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape
from math import ceil, floor, log10

import numpy as np

from eyeline.evaluation.style import CSS
from eyeline.metrics.detection import Curve

Points = Sequence[tuple[float, float]]

THRESHOLD = 0.5  # score of the dots on the curves
DASHES = ("none", "9 4", "2 3", "12 3 2 3")
COLOURS = 8  # curves with a colour of their own; the others are grey


WIDTH, HEIGHT = 640, 400
FIELD = (62, 34, WIDTH - 16, HEIGHT - 48)  # left, top, right, bottom of the axes


def colour(i: int) -> str:
    """Of the i-th curve or run: the style sheet's --c0, --c1 ..., then grey."""
    return f"var(--c{i})" if i < COLOURS else "var(--other)"


def curve_svg(curves: dict[str, Curve]) -> str:
    """Precision over recall, both 0 to 1, as an inline SVG: one line for each curve, in order."""
    left, top, right, bottom = FIELD
    unit = ticks(0, 1)

    def at(recall: float, precision: float) -> str:
        return f"{_place(recall, unit, left, right):.1f} {_place(precision, unit, bottom, top):.1f}"

    parts = [_axes(unit, unit, "recall", "precision")]
    for i, (name, curve) in reversed(list(enumerate(curves.items()))):
        if not curve.objects or not len(curve.recall):
            continue
        kind = "" if i < COLOURS else " other"
        # Points in one column of pixels become its first and its last.
        columns = np.round(left + curve.recall * (right - left)).astype(int)
        first = np.flatnonzero(np.diff(columns, prepend=-1))
        last = np.append(first[1:] - 1, len(columns) - 1)
        keep = np.unique(np.concatenate([first, last]))
        start = f"M{at(0, curve.precision[0])}"
        line = "".join(f"L{at(curve.recall[j], curve.precision[j])}" for j in keep)
        parts.append(
            f'<path class="curve{kind}" style="stroke:{colour(i)}" d="{start}{line}">'
            f"<title>{escape(name)}</title></path>"
        )
        above = int((curve.scores >= THRESHOLD).sum())
        if above and i < COLOURS:
            cx, cy = at(curve.recall[above - 1], curve.precision[above - 1]).split()
            parts.append(
                f'<circle cx="{cx}" cy="{cy}" r="4.5" style="fill:{colour(i)}">'
                f"<title>{escape(name)} at a score of {THRESHOLD}</title></circle>"
            )
    return _svg(parts, "Precision over recall, one line a class")


def histogram_svg(
    right: np.ndarray, false: np.ndarray, threshold: float | None, width: int = 320
) -> str:
    """Counts of right detections upwards and of false ones downwards, over a score of 0 to 1.

    right and false (bins,); heights grow with the square root of the count. `threshold` is drawn
    as a dashed line.
    """
    height, left, top, edge = 190, 40, 12, width - 8
    bottom = height - 24
    most = np.sqrt([max(1, right.max()), max(1, false.max())])
    unit = (bottom - top) / most.sum()
    middle = top + most[0] * unit
    step = (edge - left) / len(right)
    parts = []
    for counts, kind, sign in ((right, "good", -1), (false, "bad", 1)):
        fill = ' fill="url(#hatch)"' if kind == "bad" else ""
        for i, count in enumerate(counts.tolist()):
            if count:
                tall = count**0.5 * unit
                y = middle - tall if sign < 0 else middle
                parts.append(
                    f'<rect class="{kind}"{fill} x="{left + i * step + 0.75:.1f}" y="{y:.1f}" '
                    f'width="{step - 1.5:.1f}" height="{tall:.1f}">'
                    f"<title>{count:,} {'right' if sign < 0 else 'false'}</title></rect>"
                )
        if counts.max() > 0:
            y = top if sign < 0 else bottom
            parts.append(f'<text x="{left - 6}" y="{y + 4}" class="end">{counts.max():,}</text>')
    parts.append(f'<text x="{left - 6}" y="{middle + 4:.1f}" class="end">0</text>')
    parts.append(f'<path class="axis" d="M{left} {middle:.1f}H{edge}"/>')
    for tick in (0, 0.25, 0.5, 0.75, 1):
        x = left + tick * (edge - left)
        parts.append(f'<path class="grid" d="M{x} {bottom}v4"/>')
        parts.append(f'<text x="{x}" y="{height - 6}" class="mid">{tick:g}</text>')
    if threshold is not None:
        x = left + min(1.0, threshold) * (edge - left)
        parts.append(f'<path class="threshold" d="M{x:.1f} {top - 6}V{bottom}"/>')
    label = f"Scores of {right.sum():,} right and {false.sum():,} false detections"
    return (
        f'<svg class="histogram" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{label}">{"".join(parts)}</svg>'
    )


def ticks(low: float, high: float, count: int = 5, whole: bool = False) -> list[float]:
    """About `count` round numbers that enclose low to high; `whole`: none between two integers."""
    if high <= low:
        low, high = low - 0.05 * abs(low) - 0.01, high + 0.05 * abs(high) + 0.01
    rough = max((high - low) / count, float(whole))
    power = 10.0 ** np.floor(np.log10(rough))
    steps = (m * power for m in (1, 2, 2.5, 5, 10))
    step = min(s for s in steps if s >= rough * 0.999 and (s % 1 == 0 or not whole))
    first, last = int(np.floor(low / step + 1e-9)), int(np.ceil(high / step - 1e-9))
    return [float(np.round(i * step, 10)) for i in range(first, last + 1)]


def scatter_svg(points: dict[str, tuple[float, float]], x_name: str, y_name: str) -> str:
    """Named points (x, y); both axes begin where it is useful, x at 0 or above."""
    if not points:
        return "<p>No numbers to draw.</p>"
    xs, ys = zip(*points.values(), strict=True)
    x_ticks, y_ticks = ticks(0.0, max(xs) * 1.05), _unit_ticks(ys)
    left, top, right, bottom = FIELD
    parts = [_axes(x_ticks, y_ticks, x_name, y_name)]
    taken: list[tuple[float, float, float, float]] = []
    for i, (name, (x, y)) in enumerate(points.items()):
        cx, cy = _place(x, x_ticks, left, right), _place(y, y_ticks, bottom, top)
        parts.append(
            f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="6" style="fill:{colour(i)}">'
            f"<title>{escape(name)}: {x_name} {x:.3g}, {y_name} {y:.3f}</title></circle>"
        )
        wide = 11.5 * len(name)  # as wide as letters get on a phone
        begins = cx + 11 if cx + 11 + wide < right else cx - 11 - wide
        begins = max(float(left), begins)
        for shift in (6, -14, 26, -34, 46):  # the first place that no other name has
            box = (begins, cy + shift - 16, begins + wide, cy + shift + 4)
            if not any(_overlap(box, other) for other in taken):
                break
        taken.append(box)
        at_left = begins < cx
        anchor = ' text-anchor="end"' if at_left else ""
        tx = cx - 11 if at_left else cx + 11
        parts.append(
            f'<text class="name" x="{tx:.1f}" y="{cy + shift:.1f}"{anchor}>{escape(name)}</text>'
        )
    return _svg(parts, f"{y_name} against {x_name}, one dot a run")


def lines_svg(
    lines: Mapping[str, Points],
    x_name: str,
    y_name: str,
    *,
    merit: bool = True,
    y_range: tuple[float, float] | None = None,
    x_from: float = 0.0,
    log_x: bool = False,
    pale: Collection[str] = (),
    marks: Sequence[tuple[float, str]] = (),
) -> str:
    """One line a name through its points (x, y), in the order of the names' colours.

    Args:
        merit: y are numbers of merit: 0 to 1, high is good, and a dot lies on the best.
        y_range: what the y axis reaches over, where not over the points; beyond is cut off.
        x_from: where the x axis begins.
        pale: names of lines in the background, thin and grey.
        marks: upright lines at some x, with a word each.
    """
    every = [point for points in lines.values() for point in points]
    if not every:
        return "<p>No numbers to draw.</p>"
    to_axis = log10 if log_x else float
    xs = [to_axis(x) for x in (*(x for x, _ in every), *(x for x, _ in marks))]
    ys = tuple(y_range or (y for _, y in every))
    if log_x:
        x_ticks = [float(k) for k in range(floor(min(xs) + 1e-9), ceil(max(xs) - 1e-9) + 1)]
    else:
        x_ticks = ticks(x_from, max(xs), whole=not x_from)
    y_ticks = _unit_ticks(ys) if merit else ticks(min(ys), max(ys))
    left, top, right, bottom = FIELD
    parts = [_axes(x_ticks, y_ticks, x_name, y_name, log_x)]
    words = []
    for i, (x, word) in enumerate(marks):
        cx = _place(to_axis(x), x_ticks, left, right)
        parts.append(f'<path class="mark" d="M{cx:.1f} {top}V{bottom}"/>')
        near_end = cx > right - 170
        anchor = ' text-anchor="end"' if near_end else ""
        place = f'x="{cx - 6 if near_end else cx + 6:.1f}" y="{top + 14 + 20 * i}"'
        words.append(f'<text class="word" {place}{anchor}>{escape(word)}</text>')
    drawn = []
    for name, style in reversed(list(line_styles(lines, pale).items())):
        points = lines[name]
        if not points:
            continue
        at = [
            (_place(to_axis(x), x_ticks, left, right), _place(y, y_ticks, bottom, top))
            for x, y in points
        ]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in at)
        drawn.append(
            f'<path class="curve" style="{style}" d="M{path}"><title>{escape(name)}</title></path>'
        )
        if merit or len(at) == 1:  # of one point there is no line to be seen
            x, y = at[max(range(len(points)), key=lambda j: points[j][1])]
            fill = style.partition(";")[0].replace("stroke", "fill")
            drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" style="{fill}"/>')
    if y_range:
        size = f'x="{left}" y="{top}" width="{right - left}" height="{bottom - top}"'
        box = f"{left} {top} {right - left} {bottom - top}"
        drawn = [f'<svg {size} viewBox="{box}">', *drawn, "</svg>"]  # cuts off what lies beyond
    best = ", one line a run, a dot on the best" if merit else ""
    return _svg([*parts, *drawn, *words], f"{y_name} against {x_name}{best}")


def moves_svg(
    points: Mapping[str, Points], lines: Mapping[str, Points], x_name: str, y_name: str, low: float
) -> str:
    """Shares (x, y) before and after something, from `low` to 1: a faint dot each, lines over them,
    and the diagonal, on which nothing has changed."""
    if not any(lines.values()):
        return "<p>No numbers to draw.</p>"
    left, top, right, bottom = FIELD
    unit = ticks(low, 1)

    def at(x: float, y: float) -> tuple[float, float]:
        return _place(x, unit, left, right), _place(max(y, low), unit, bottom, top)

    parts = [_axes(unit, unit, x_name, y_name)]
    for i, name in enumerate(points):
        dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in (at(*p) for p in points[name]))
        if dots:
            style = f"stroke:{colour(i)};stroke-width:3;stroke-linecap:round;opacity:.22"
            parts.append(f'<path style="{style}" d="{dots}"/>')
    (x1, y1), (x2, y2) = at(low, low), at(1, 1)
    parts.append(f'<path class="mark" d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"/>')
    for name, style in reversed(list(line_styles(lines).items())):
        if lines[name]:
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y in (at(*p) for p in lines[name]))
            parts.append(
                f'<path class="curve" style="{style}" d="M{path}"><title>{escape(name)}</title>'
                "</path>"
            )
    return _svg(parts, f"{y_name} against {x_name}")


def line_styles(names: Iterable[str], pale: Collection[str] = ()) -> dict[str, str]:
    """Colour and dashes of each line: told apart without colours too."""
    styles, i = {}, 0
    for name in names:
        styles[name] = "stroke:var(--other);stroke-width:1.5"
        if name not in pale:
            styles[name] = f"stroke:{colour(i)};stroke-dasharray:{DASHES[i % len(DASHES)]}"
            i += 1
    return styles


def legend(styles: Mapping[str, str], words: Mapping[str, str]) -> str:
    """A list of lines: their look, their name, and some words each; those without are left out."""
    keys = []
    for name, style in styles.items():
        if name in words:
            line = f'<path class="curve" style="{style}" d="M0 4H30"/>'
            keys.append(
                f'<li class="line"><svg viewBox="0 0 30 8" aria-hidden="true">{line}</svg>'
                f"<b>{escape(name)}</b> <span>{escape(words[name])}</span></li>"
            )
    return f"<ul>{''.join(keys)}</ul>"


def standalone(chart: str, names: Iterable[str]) -> str:
    """A chart of lines as a picture of its own, with its style, and the lines' names below it."""
    rows = []
    for i, (name, style) in enumerate(line_styles(names).items()):
        y = HEIGHT + 20 * i + 12
        rows.append(f'<path class="curve" style="{style}" d="M{FIELD[0]} {y - 4}h30"/>')
        rows.append(f'<text x="{FIELD[0] + 40}" y="{y}">{escape(name)}</text>')
    height = HEIGHT + 20 * len(rows) // 2 + 8
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="system-ui, sans-serif"><style>{CSS}</style>'
        f'<rect width="100%" height="100%" fill="var(--paper)"/>'
        f'<svg width="{WIDTH}" height="{HEIGHT}">{chart}</svg>{"".join(rows)}</svg>\n'
    )


def _unit_ticks(values: tuple[float, ...]) -> list[float]:
    """Ticks for numbers of merit: about them, and never outside 0 to 1."""
    low, high = min(values), max(values)
    room = max(0.02, 0.15 * (high - low))
    return ticks(max(0.0, low - room), min(1.0, high + room))


def _place(value: float, on: list[float], start: float, end: float) -> float:
    return start + (value - on[0]) / (on[-1] - on[0]) * (end - start)


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _axes(
    x_ticks: list[float], y_ticks: list[float], x_name: str, y_name: str, log_x: bool = False
) -> str:
    left, top, right, bottom = FIELD
    parts = []
    for tick in x_ticks:
        x = _place(tick, x_ticks, left, right)
        parts.append(f'<path class="grid" d="M{x:.1f} {top}V{bottom}"/>')
        told = 10**tick if log_x else tick
        parts.append(f'<text x="{x:.1f}" y="{bottom + 21}" class="mid">{told:g}</text>')
    for tick in y_ticks:
        y = _place(tick, y_ticks, bottom, top)
        parts.append(f'<path class="grid" d="M{left} {y:.1f}H{right}"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 5:.1f}" class="end">{_short(tick)}</text>')
    parts.append(f'<text x="{(left + right) / 2}" y="{HEIGHT - 5}" class="mid">{x_name}</text>')
    parts.append(f'<text x="4" y="18">{y_name}</text>')
    return "".join(parts)


def _short(tick: float) -> str:
    """A number that has room beside an axis: 0.0003 as 3e-4."""
    if tick and abs(tick) < 0.01:
        mantissa, _, exponent = f"{tick:e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{tick:g}"


def _svg(parts: list[str], label: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )
