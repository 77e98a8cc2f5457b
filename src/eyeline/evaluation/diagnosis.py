"""The parts of a report that say where a detector errs: scores, confusions, pictures."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from eyeline.evaluation.charts import histogram_svg
from eyeline.evaluation.html import LONGEST, bar, matrix_table, picture_uri
from eyeline.inference.draw import to_pil
from eyeline.metrics.analysis import Best, verdicts

if TYPE_CHECKING:
    from eyeline.evaluation.evaluate import Report

CHARTS = 6  # histograms shown, of the most frequent classes
MATRIX = 24  # classes up to which all confusions are shown, else a list of the most frequent
LIST = 20  # confusions in that list


def scores(report: Report) -> str:
    """Histograms of the scores, and the best threshold of each class."""
    analysis = report.analysis
    rows = list(report.per_class.values())
    present = [k for k, row in enumerate(rows) if row["objects"]]
    most = sorted(present, key=lambda k: -rows[k]["objects"])[:CHARTS]
    figures = []
    for k in most:
        best, name = analysis.best[k], escape(report.classes[k])
        at = f"best threshold {_down(best.score)}" if best else "nothing found"
        chart = histogram_svg(*analysis.histograms[k], best.score if best else None)
        figures.append(f"<figure><figcaption><b>{name}</b> {at}</figcaption>{chart}</figure>")
    header = "".join(
        f'<th scope="col" class="num">{name}</th>'
        for name in ("threshold", "F1", "precision", "recall")
    )
    lines = [_line(report.classes[k], analysis.best[k]) for k in present]
    if len(present) > 1:
        lines.append(_line("one for all", analysis.overall, "all"))
    others = len(present) - len(most)
    rest = f" Shown are the {CHARTS} most frequent classes of {len(present)}." if others else ""
    return f"""<section>
<h2>Scores and thresholds</h2>
<p>How many detections have which score: right ones above the line, false ones, hatched, below it.
Heights grow with the square root of the count. The dashed line is the class's best threshold: from
there on its F1, the balance of precision and recall, is highest.{rest}</p>
{DEFINITIONS}
<div class="small">{"".join(figures)}</div>
<div class="scroll"><table class="classes"><thead><tr><th scope="col">class</th>{header}
<th class="wide"></th></tr></thead><tbody>{"".join(lines)}</tbody></table></div>
</section>"""


def _line(name: str, best: Best | None, kind: str = "") -> str:
    values = ["-"] * 4
    if best:
        values = [_down(best.score)] + [f"{x:.3f}" for x in best[1:]]
    cells = "".join(f'<td class="num">{value}</td>' for value in values)
    return (
        f'<tr class="{kind}"><th scope="row">{escape(name)}</th>{cells}'
        f'<td class="wide">{bar(best and best.f1)}</td></tr>'
    )


def _down(score: float) -> str:
    """Rounded down, so that the detection with that very score still counts."""
    return f"{np.floor(score * 1000) / 1000:.3f}"


def confusions(report: Report) -> str:
    """Which class was taken for which: a table, or a list where classes are many."""
    matrix, names = report.analysis.confusion, report.classes
    used = [k for k in range(len(names)) if matrix[k].any() or matrix[:, k].any()]
    shown = _matrix(matrix, names, used) if len(used) <= MATRIX else _list(matrix, names)
    return f"""<section>
<h2>What is taken for what</h2>
<p>Every object and every detection from its class's best threshold on, paired at an overlap of one
half: first within the class, then what is left across classes. Each row is what is annotated, each
column what the detector says; the tint is the share of the row.</p>
{shown}
</section>"""


def _matrix(matrix: np.ndarray, names: list[str], used: list[int]) -> str:
    last = len(names)
    columns = [*used, last]
    rows = []
    for row in columns:
        total = max(1, matrix[row].sum())
        rows.append([_cell(matrix[row, k], total, row, k, last) for k in columns])
    own = [names[k] for k in used]
    return matrix_table([*own, "background"], [*own, "missed"], rows, len(used) > 6)


def _cell(count: int, total: int, row: int, column: int, last: int) -> str:
    if row == column == last:
        return "<td></td>"
    if not count:
        return '<td class="none">0</td>'
    kind = "hit" if row == column else "miss"
    share = count / total
    return (
        f'<td class="{kind}" style="--share:{0.06 + 0.44 * share:.2f}">{count:,}'
        f"<small>{share:.0%}</small></td>"
    )


def _list(matrix: np.ndarray, names: list[str]) -> str:
    errors = matrix.copy()
    np.fill_diagonal(errors, 0)
    order = np.argsort(-errors, axis=None, kind="stable")[:LIST]
    pairs = [(i // len(errors), i % len(errors)) for i in order.tolist()]
    rows = "".join(
        f'<tr><th scope="row">{escape([*names, "background"][a])}</th>'
        f'<td>{escape([*names, "missed"][b])}</td><td class="num">{errors[a, b]:,}</td>'
        f'<td class="num">{errors[a, b] / matrix[a].sum():.0%}</td></tr>'
        for a, b in pairs
        if errors[a, b]
    )
    return (
        f"<p>The {LIST} most frequent errors; results.json has the whole table.</p>"
        '<div class="scroll"><table class="classes"><thead><tr><th scope="col">annotated</th>'
        '<th scope="col">detected</th><th scope="col" class="num">times</th>'
        '<th scope="col" class="num">of the row</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def extremes(report: Report, pictures: int) -> str:
    """The pictures with the lowest and the highest F1, up to `pictures` of each."""
    if report.dataset is None or pictures < 1:
        return ""
    found = report.analysis.pictures
    order = report.analysis.worst_first()
    worst = [i for i in order if found[i].f1 < 1][:pictures]
    best = [i for i in order[::-1] if found[i].right and i not in worst][:pictures]
    parts = []
    for title, chosen in (("Worst pictures", worst), ("Best pictures", best)):
        if chosen:
            figures = "".join(_shot(report, i) for i in chosen)
            parts.append(f'<h3>{title}</h3><div class="shots">{figures}</div>')
    if not worst:
        parts.insert(0, "<p>No picture has an error.</p>")
    return f"""<section>
<h2>Best and worst pictures</h2>
<p>By F1, each class from its best threshold on, at an overlap of one half.</p>
{LEGEND}
{"".join(parts)}
</section>"""


def shown_picture(report: Report, i: int) -> tuple[Image.Image, float, str]:
    """The i-th picture as it stands on the page, how much larger it is there, and its name."""
    assert report.dataset is not None
    image = to_pil(report.dataset[i][0])
    scale = LONGEST / max(image.size)  # up, too: the tags need room
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    return image, scale, report.paths[i].name if report.paths else f"picture {i}"


def _shot(report: Report, i: int) -> str:
    image, scale, name = shown_picture(report, i)
    prediction, target = report.predictions[i], report.targets[i]
    analysis, score = report.analysis, report.analysis.pictures[i]
    right, false, missed = verdicts(prediction, target, analysis.pairs[i], analysis.thresholds)
    boxes, truth = (x["boxes"].numpy() * scale for x in (prediction, target))
    labels, true_labels = prediction["labels"].tolist(), target["labels"].tolist()
    marks = [_mark("right", boxes[d]) for d in np.flatnonzero(right)]
    if "iscrowd" in target:
        marks += [_mark("ignored", truth[g]) for g in np.flatnonzero(target["iscrowd"].numpy())]
    tags = []
    for g in np.flatnonzero(missed):
        marks.append(_mark("missed", truth[g]))
        tags.append(_tag("missed", truth[g], report.classes[true_labels[g]], image.size))
    for d in np.flatnonzero(false):
        marks.append(_mark("false", boxes[d]))
        text = f"{report.classes[labels[d]]} {prediction['scores'][d]:.2f}"
        tags.append(_tag("false", boxes[d], text, image.size))
    said = f"{score.right} right, {score.false} false, {score.missed} missed"
    return (
        f'<figure><svg viewBox="0 0 {image.width} {image.height}" role="img" '
        f'aria-label="{escape(name)}: {said}"><image href="{picture_uri(image, "JPEG")}" '
        f'width="{image.width}" height="{image.height}"/>{"".join(marks + tags)}</svg>'
        f"<figcaption><b>{escape(name)}</b> F1 {score.f1:.2f}: {said}</figcaption></figure>"
    )


def _mark(kind: str, box: np.ndarray) -> str:
    """A box in the line style of its kind, on a dark line that sets it off."""
    x1, y1, x2, y2 = (float(v) for v in box)
    shape = f'x="{x1:.1f}" y="{y1:.1f}" width="{x2 - x1:.1f}" height="{y2 - y1:.1f}"'
    return f'<rect class="under" {shape}/><rect class="{kind}" {shape}/>'


def _tag(kind: str, box: np.ndarray, text: str, size: tuple[int, int]) -> str:
    """What a box is: above false ones, below missed ones, inside the picture of `size`."""
    x1, y1, x2, y2 = (float(v) for v in box)
    y = max(16.0, y1 - 4) if kind == "false" else min(size[1] - 4.0, y2 + 12)
    x, anchor = (x2, ' text-anchor="end"') if x1 > 0.75 * size[0] else (x1, "")
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}"{anchor}>{escape(text)}</text>'


def _key(kind: str, text: str) -> str:
    shape = 'x="3" y="3" width="34" height="16"'
    return (
        f'<li><svg viewBox="0 0 40 22" width="40" height="22" aria-hidden="true">'
        f'<rect class="ground" width="40" height="22"/><rect class="under" {shape}/>'
        f'<rect class="{kind}" {shape}/></svg>{text}</li>'
    )


LEGEND = (
    '<ul class="legend">'
    + _key("right", "right: solid")
    + _key("false", "false: dashed, class and score above")
    + _key("missed", "missed: dotted, class below")
    + _key("ignored", "ignored: thin, dash and dot")
    + "</ul>"
)
DEFINITIONS = (
    '<svg width="0" height="0" class="hidden" aria-hidden="true"><defs>'
    '<pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><rect class="hatch" width="2.4" height="5"/></pattern>'
    "</defs></svg>"
)
