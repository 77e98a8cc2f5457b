"""A sweep as a page: which values make good trials."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from eyeline.evaluation.charts import ticks
from eyeline.evaluation.html import bar, counted, document
from eyeline.training.sweeps.ranges import Range, label

if TYPE_CHECKING:
    from eyeline.training.sweeps.plan import Plan
    from eyeline.training.sweeps.results import Result

STYLE = """
.paths svg { display: block; width: 100%; }
.paths .axis, .dots .axis { stroke: var(--soft); }
.paths path.run { fill: none; stroke: var(--other); stroke-width: 1.6; }
.paths path.run.good { stroke: var(--c0); }
.paths path.run.first { stroke: var(--c1); stroke-width: 3; }
.paths path.run.pruned { stroke-dasharray: 3 4; }
.paths text, .dots text { fill: var(--soft); font-size: 13px; }
.paths text { paint-order: stroke; stroke: var(--paper); stroke-width: 4px; }
.paths .head, .dots .head { fill: var(--ink); font-weight: 600; }
.paths .mid, .dots .mid { text-anchor: middle; }
.paths .end, .dots .end { text-anchor: end; }
.dots svg { display: block; width: 100%; max-width: 26rem; height: auto; }
.dots circle { fill: var(--c0); stroke: var(--paper); stroke-width: 1.5; }
.dots circle.first { fill: var(--c1); }
.dots circle.pruned { fill: var(--paper); stroke: var(--c0); }
.classes td { white-space: nowrap; }
.state { color: var(--soft); }
.values { overflow-wrap: anywhere; margin-top: 1rem; }
"""


def page(name: str, plan: Plan, results: Sequence[Result], importance: Mapping[str, float]) -> str:
    """The page; results best first."""
    drawn = [r for r in results if r.value is not None and len(r.values) == len(plan.ranges)]
    best = next((r for r in results if r.state == "complete"), None)
    count = {s: sum(r.state == s for r in results) for s in ("complete", "pruned", "failed")}
    told = [counted(count["complete"], "complete trial")]
    told += [f"{count['pruned']} ended early"] if count["pruned"] else []
    told += [f"{count['failed']} failed"] if count["failed"] else []
    better = "lower" if plan.lower_is_better else "higher"
    head = "" if best is None else _head(plan, best)
    drawing = ""
    if len(drawn) > 1:
        drawing = f"""<section>
<h2>Trials</h2>
<p>A line a trial, from value to value to its {escape(plan.metric)}: the best in orange, the better
half in blue; dashed ones were ended early.</p>
<figure class="paths scroll">{_paths(plan, drawn)}</figure>
</section>
<section>
<h2>{escape(plan.metric)} against each key</h2>
<p>A dot a trial, the best in orange; hollow ones were ended early.</p>
<div class="small dots">{"".join(_dots(plan, drawn, r) for r in plan.ranges)}</div>
</section>"""
    return document(
        f"Sweep {name}",
        f"""<header>
<h1>Sweep {escape(name)}</h1>
<p>{escape(", ".join(told))} of {plan.trials}. {escape(plan.metric)} is the best of a trial's
epochs, on the validation data; {better} is better.</p>
{head}
</header>
<main>
{drawing}
{_importance(importance)}
<section>
<h2>Numbers</h2>
{_table(plan, results)}
</section>
{_failures(results)}
</main>
""",
        STYLE,
    )


def _head(plan: Plan, best: Result) -> str:
    rows = "".join(
        f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>"
        for k, v in (
            (plan.metric, f"{best.value:.3f}"), ("trial", str(best.number)),
            ("epochs", str(max(best.per_epoch, default=0))),
        )
    )  # fmt: skip
    values = ", ".join(f"{k}={_short(v)}" for k, v in best.values.items())
    return f'<dl class="head">{rows}</dl><p class="values">Best: {escape(values)}.</p>'


def _importance(importance: Mapping[str, float]) -> str:
    if not importance:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape(key)}</th><td class="num">{100 * share:.0f} %</td>'
        f"<td>{bar(share)}</td></tr>"
        for key, share in sorted(importance.items(), key=lambda item: -item[1])
    )
    return f"""<section>
<h2>What decides</h2>
<p>How much each key tells the best quarter of the complete trials from the others (PED-ANOVA). With
few trials this is a hint, no proof.</p>
<table class="numbers">{rows}</table>
</section>"""


def _table(plan: Plan, results: Sequence[Result]) -> str:
    keys = [r.key for r in plan.ranges]
    head = "".join(
        f'<th scope="col" class="num">{escape(name)}</th>' for name in (plan.metric, "epochs", "s")
    ) + "".join(f'<th scope="col">{escape(key)}</th>' for key in keys)
    rows = []
    for one in results:
        numbers = ("-" if one.value is None else f"{one.value:.3f}",
                   str(max(one.per_epoch, default=0)), f"{one.seconds:.0f}")  # fmt: skip
        cells = "".join(f'<td class="num">{n}</td>' for n in numbers)
        cells += "".join(
            f"<td>{escape(_short(one.values[key]) if key in one.values else '-')}</td>"
            for key in keys
        )
        state = {"complete": "", "pruned": "ended early"}.get(one.state, one.state)
        rows.append(
            f'<tr><th scope="row">{one.number}</th>{cells}<td class="state">{state}</td></tr>'
        )
    return (
        f'<div class="scroll"><table class="classes"><thead><tr><th scope="col">trial</th>{head}'
        f"<th></th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _failures(results: Sequence[Result]) -> str:
    failed = [r for r in results if r.error]
    if not failed:
        return ""
    rows = "".join(f"<li>trial {r.number}: {escape(r.error)}</li>" for r in failed)
    return f'<section><h2>Failed</h2><ul class="doubts">{rows}</ul></section>'


class Axis:
    """Where a key's values lie, from 0 to 1, and what is written beside them."""

    def __init__(self, kind: str, values: Sequence[Any], choices: Sequence[Any] = ()) -> None:
        self.kind = kind
        if choices:
            self.labels = [label(choice) for choice in choices]
            self.marks = [(self(choice), _cut(_short(choice))) for choice in choices]
            return
        if kind == "log":
            low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
            points = [10.0**i for i in range(low, max(high, low + 1) + 1)]
        else:
            points = ticks(min(values), max(values), 4, whole=kind == "int")
        self.low, self.high = self._on(points[0]), self._on(points[-1])
        self.marks = [(self(point), f"{point:g}") for point in points]

    def _on(self, value: float) -> float:
        return math.log10(value) if self.kind == "log" else value

    def __call__(self, value: Any) -> float:
        if self.kind == "choice":
            return (self.labels.index(label(value)) + 0.5) / len(self.labels)
        return (self._on(value) - self.low) / (self.high - self.low)


def _axes(plan: Plan, drawn: Sequence[Result]) -> dict[str, Axis]:
    return {
        r.key: Axis(r.kind, [one.values[r.key] for one in drawn], r.choices) for r in plan.ranges
    }


def _value_axis(drawn: Sequence[Result]) -> Axis:
    """The metric's; in powers of ten where a trial has run away."""
    values = [r.value for r in drawn if r.value is not None]
    far = min(values) > 0 and max(values) > 100 * min(values)
    return Axis("log" if far else "uniform", values)


def _paths(plan: Plan, drawn: Sequence[Result]) -> str:
    """Parallel coordinates: an upright axis a key, the metric's at the right."""
    axes = _axes(plan, drawn)
    columns = [*axes.items(), (plan.metric, _value_axis(drawn))]
    apart, height, top, bottom, left = 190, 320, 44, 290, 80
    width = left + apart * (len(columns) - 1) + 80
    parts = []
    for i, one in reversed(list(enumerate(drawn))):
        at = [axis(one.values[key]) for key, axis in columns[:-1]] + [columns[-1][1](one.value)]
        points = [(left + k * apart, bottom - y * (bottom - top)) for k, y in enumerate(at)]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        kind = _kind(drawn, i) + (" pruned" if one.state == "pruned" else "")
        parts.append(f'<path class="run {kind}" d="M{path}"><title>{_told(one)}</title></path>')
    for k, (key, axis) in enumerate(columns):
        x = left + k * apart
        side, anchor = (x + 8, "") if k == len(columns) - 1 else (x - 8, ' class="end"')
        parts.append(f'<path class="axis" d="M{x} {top}V{bottom}"/>')
        parts.append(f'<text class="head mid" x="{x}" y="{top - 16}">{escape(key)}</text>')
        for y, mark in axis.marks:
            at_y = bottom - y * (bottom - top)
            parts.append(f'<text x="{side}" y="{at_y + 4:.1f}"{anchor}>{escape(mark)}</text>')
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" '
        f'style="min-width:{width * 0.9:.0f}px;max-width:{width * 1.2:.0f}px" '
        f'aria-label="Values and {escape(plan.metric)} of each trial">{"".join(parts)}</svg>'
    )


def _dots(plan: Plan, drawn: Sequence[Result], key: Range) -> str:
    """The metric over one key."""
    across, up = _axes(plan, drawn)[key.key], _value_axis(drawn)
    width, height, left, right, top, bottom = 320, 220, 62, 296, 30, 192
    parts = [f'<text class="head" x="4" y="16">{escape(key.key)}</text>']
    for y, mark in up.marks:
        at = bottom - y * (bottom - top)
        parts.append(f'<path class="grid" d="M{left} {at:.1f}H{right}"/>')
        parts.append(f'<text class="end" x="{left - 6}" y="{at + 4:.1f}">{mark}</text>')
    shown = across.marks if len(across.marks) < 6 else across.marks[:: len(across.marks) // 4]
    letters = (right - left) // (7 * len(shown))  # that have room; a letter is 7 wide
    for x, mark in shown:
        at, mark = left + x * (right - left), escape(_cut(mark, max(letters, 5)))
        parts.append(f'<text class="mid" x="{at:.1f}" y="{bottom + 18}">{mark}</text>')
    for i, one in reversed(list(enumerate(drawn))):
        x = left + across(one.values[key.key]) * (right - left)
        y = bottom - up(one.value) * (bottom - top)
        kind = "first" if i == 0 else "pruned" if one.state == "pruned" else ""
        parts.append(
            f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="5"><title>{_told(one)}</title>'
            "</circle>"
        )
    name = f"{escape(plan.metric)} over {escape(key.key)}"
    return (
        f'<figure><svg viewBox="0 0 {width} {height}" role="img" aria-label="{name}">'
        f"{''.join(parts)}</svg></figure>"
    )


def _kind(drawn: Sequence[Result], i: int) -> str:
    if i == 0:
        return "first"
    return "good" if i < (len(drawn) + 1) // 2 else ""


def _told(one: Result) -> str:
    values = ", ".join(f"{k}={_short(v)}" for k, v in one.values.items())
    return escape(f"trial {one.number}: {one.value:.4g} ({values})")


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else label(value)


def _cut(words: str, most: int = 18) -> str:
    return words if len(words) <= most else f"{words[: most - 1]}…"
