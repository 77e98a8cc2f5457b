"""The report of a segmenter's evaluation as one page: no script, no other file, light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from torch import Tensor

from eyeline.evaluation.html import bar, counted, document, facts, matrix_table, picture_uri
from eyeline.evaluation.running import rate, show
from eyeline.inference.draw import to_pil
from eyeline.inference.draw_map import class_colours, coloured, draw_errors
from eyeline.metrics.edges import Band
from eyeline.ops.labels import IGNORE

if TYPE_CHECKING:
    from eyeline.evaluation.segmentation import SegmentationReport

HEAD = (
    ("mIoU", "mIoU"),
    ("pixel_accuracy", "pixel accuracy"),
    ("mean_pixel_accuracy", "mean pixel accuracy"),
    ("boundary_F1", "boundary F1"),
)
NAMES = dict(HEAD) | {"fw_IoU": "frequency-weighted IoU"}
OF_A_CLASS = ("precision", "recall", "F1", "boundary_F1")
WORDS = {
    "mIoU": "pixels that are of a class and are found, over those that are either; the mean of all "
    "classes",
    "pixel_accuracy": "share of all pixels whose class is right",
    "mean_pixel_accuracy": "share of a class's pixels that are found; the mean of all classes",
    "fw_IoU": "IoU, each class counted by its pixels",
    "Dice": "twice the pixels that are found, over those there are and those said; the mean of all "
    "classes, as F1",
    "F1": "balance of precision and recall; the mean of all classes",
    "precision": "share of the pixels said to be of a class that are; the mean of all classes",
    "recall": "share of a class's pixels that are found; the mean of all classes",
    "boundary_F1": "the same balance for outlines, which count as found within 0.75 % of the "
    "picture's diagonal; the mean of all pictures",
}
MATRIX = 24  # classes up to which all confusions are shown, else a list of the most frequent
LIST = 20  # confusions in that list
SIDE = 300  # pixels of a small picture's longer side
MAPS = ("truth", "prediction")  # of plain colours


def page(report: SegmentationReport, title: str = "Evaluation") -> str:
    """The report as HTML."""
    head = "".join(
        f"<div><dt>{name}</dt><dd>{show(report.metrics[key])}</dd></div>"
        for key, name in HEAD
        if key in report.metrics
    )
    speed = rate(report.pictures_per_second)
    pixels = sum(row["pixels"] for row in report.per_class.values())
    body = f"""<header>
<h1>{escape(title)}</h1>
<p>{counted(len(report.per_picture), "picture")}, {counted(pixels, "pixel")},
{counted(len(report.classes), "class", "classes")}. Scores lie between 0 and 1; higher is
better.</p>
<dl class="head">{head}<div><dt>pictures a second</dt><dd>{speed}</dd></div></dl>
</header>
<main>
<section>
<h2>How good</h2>
{numbers(report.metrics)}
</section>
<section>
<h2>Class by class</h2>
{class_table(report)}
</section>
{confusions(report)}
{edges(report)}
{pictures(report)}
<section>
<h2>The run</h2>
{facts(report.facts)}
</section>
</main>
"""
    return document(title, body)


def numbers(metrics: Mapping[str, float | None]) -> str:
    """A segmenter's numbers of merit as a table, each with a bar and what it says."""
    rows = "".join(
        f'<tr><th scope="row">{_name(key)}</th><td class="num">{show(value)}</td>'
        f"<td>{bar(value)}<small>{WORDS[key]}</small></td></tr>"
        for key, value in metrics.items()
        if key in WORDS
    )
    return f'<table class="numbers">{rows}</table>'


def _name(key: str) -> str:
    return escape(NAMES.get(key, key.replace("_", " ")))


def class_table(report: SegmentationReport) -> str:
    """A row of numbers for each class that is in the data, or in what the model says."""
    rows = report.per_class
    keys = [key for key in OF_A_CLASS if key in next(iter(rows.values()), {})]
    total = max(1, sum(row["pixels"] for row in rows.values()))
    header = "".join(f'<th scope="col" class="num">{_name(key)}</th>' for key in keys)
    body = "".join(
        f'<tr><th scope="row">{_swatch(report.classes, k)}{escape(name)}</th>'
        f'<td class="num">{row["pixels"] / total:.1%}</td>'
        f'<td class="num">{show(row["IoU"])}</td><td class="wide">{bar(row["IoU"])}</td>'
        + "".join(f'<td class="num">{show(row[key])}</td>' for key in keys)
        + "</tr>"
        for k, (name, row) in enumerate(rows.items())
        if row["IoU"] is not None
    )
    absent = [name for name, row in rows.items() if row["IoU"] is None]
    note = f"<p>Not in the data: {escape(', '.join(absent))}.</p>" if absent else ""
    return (
        '<div class="scroll"><table class="classes"><thead><tr><th scope="col">class</th>'
        '<th scope="col" class="num">of all pixels</th><th scope="col" class="num">IoU</th>'
        f'<th class="wide"></th>{header}</tr></thead><tbody>{body}</tbody></table></div>{note}'
    )


def confusions(report: SegmentationReport) -> str:
    """Which class was taken for which: a table, or a list where classes are many."""
    matrix, names = report.confusion.cpu().numpy(), report.classes
    used = [k for k in range(len(names)) if matrix[k].any() or matrix[:, k].any()]
    shown = _matrix(matrix, names, used) if len(used) <= MATRIX else _list(matrix, names)
    return f"""<section>
<h2>What is taken for what</h2>
<p>Each row is what the pixels are, each column what the model says; a cell is the share of its
row.</p>
{shown}
</section>"""


def _matrix(matrix: np.ndarray, names: Sequence[str], used: Sequence[int]) -> str:
    rows = []
    for row in used:
        total = max(1, int(matrix[row].sum()))
        rows.append([_cell(int(matrix[row, k]), total, row == k) for k in used])
    own = [names[k] for k in used]
    return matrix_table(own, own, rows, len(used) > 6, "pixels")


def _cell(count: int, total: int, right: bool) -> str:
    share = count / total
    if share < 0.0005:
        return f'<td class="none" title="{count:,} pixels">0</td>'
    return (
        f'<td class="{"hit" if right else "miss"}" style="--share:{0.06 + 0.44 * share:.2f}" '
        f'title="{count:,} pixels">{100 * share:.{0 if share >= 0.0995 else 1}f}&thinsp;%</td>'
    )


def _list(matrix: np.ndarray, names: Sequence[str]) -> str:
    errors = matrix.copy()
    np.fill_diagonal(errors, 0)
    order = np.argsort(-errors, axis=None, kind="stable")[:LIST]
    pairs = [(i // len(errors), i % len(errors)) for i in order.tolist()]
    wrong = max(1, int(errors.sum()))
    rows = "".join(
        f'<tr><th scope="row">{escape(names[a])}</th><td>{escape(names[b])}</td>'
        f'<td class="num">{errors[a, b] / matrix[a].sum():.1%}</td>'
        f'<td class="num">{errors[a, b] / wrong:.1%}</td></tr>'
        for a, b in pairs
        if errors[a, b]
    )
    return (
        f"<p>The {LIST} most frequent errors; results.json has the whole table.</p>"
        '<div class="scroll"><table class="classes"><thead><tr><th scope="col">it is</th>'
        '<th scope="col">taken for</th><th scope="col" class="num">of the class</th>'
        '<th scope="col" class="num">of all errors</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def edges(report: SegmentationReport) -> str:
    """Errors near the outlines of things, and inside them."""
    if report.edges is None:
        return ""
    bands = [band for band in report.edges.bands() if band.pixels]
    pixels, errors = (sum(b.pixels for b in bands), sum(b.errors for b in bands))
    rows = "".join(_band(band, pixels, max(1, errors)) for band in bands)
    near = [band for band in bands if band.upto <= 4]
    within = sum(b.errors for b in near) / max(1, errors)
    area = sum(b.pixels for b in near) / max(1, pixels)
    return f"""<section>
<h2>At boundaries and inside</h2>
<p>Distances are those from the nearest true boundary between two labels. Of the errors
{within:.0%} lie within 4 pixels of one, where {area:.0%} of the pixels are; those far inside are
whole things taken for others.</p>
<div class="scroll"><table class="classes bands"><thead><tr><th scope="col">from a boundary</th>
<th scope="col" class="num">of all pixels</th><th scope="col" class="num">of all errors</th>
<th scope="col" class="num">wrong there</th><th class="wide"></th></tr></thead>
<tbody>{rows}</tbody></table></div>
</section>"""


def _band(band: Band, pixels: int, errors: int) -> str:
    return (
        f'<tr><th scope="row">{band.name}</th><td class="num">{band.pixels / pixels:.1%}</td>'
        f'<td class="num">{band.errors / errors:.1%}</td><td class="num">{band.rate or 0:.1%}</td>'
        f'<td class="wide">{bar(band.rate)}</td></tr>'
    )


def pictures(report: SegmentationReport) -> str:
    """The worst pictures, and some that were not chosen for anything."""
    if report.dataset is None or not (report.worst or report.examples):
        return ""
    parts = []
    for title, words, chosen in (
        ("Worst pictures", "By the mean IoU of the classes in them.", report.worst),
        ("Pictures", "Spread evenly over the data; none was picked.", report.examples),
    ):
        if chosen:
            figures = "".join(_figure(report, example.index, example.classes) for example in chosen)
            parts.append(f'<h3>{title}</h3><p>{words}</p><div class="gallery">{figures}</div>')
    return f"""<section>
<h2>Pictures</h2>
<p>What was given, what it is, what the model says, and in red where that is wrong. What is ignored
is white.</p>
{swatches(report.classes)}
{"".join(parts)}
</section>"""


def _figure(report: SegmentationReport, i: int, said: Tensor) -> str:
    assert report.dataset is not None
    image, target = report.dataset[i]
    given, truth = to_pil(image), target["map"].cpu()
    ignored = truth == IGNORE
    wrong = (said.cpu() != truth) & ~ignored
    sides = {
        "picture": given,
        "truth": coloured(truth, report.classes),
        "prediction": coloured(said, report.classes),
        "errors": draw_errors(given, wrong.numpy(), ignored.numpy()),
    }
    images = "".join(
        f'<div><img src="{picture_uri(_small(side, name), _kind(name))}" loading="lazy" '
        f'alt="{name}"><span>{name}</span></div>'
        for name, side in sides.items()
    )
    name = report.paths[i].name if report.paths else f"picture {i}"
    own = "  ".join(f"{NAMES.get(k, k)} {show(v)}" for k, v in report.per_picture[i].items())
    return (
        f'<figure><div class="sides">{images}</div><figcaption><b>{escape(name)}</b> '
        f"{escape(own)}</figcaption></figure>"
    )


def _kind(name: str) -> str:
    return "PNG" if name in MAPS else "JPEG"


def _small(image: Image.Image, name: str) -> Image.Image:
    scale = min(1.0, SIDE / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    how = Image.Resampling.NEAREST if name in MAPS else Image.Resampling.BOX
    return image.resize(size, how)


def swatches(classes: Sequence[str]) -> str:
    """What the colours mean."""
    items = "".join(
        f"<li>{_swatch(classes, k)}{escape(name)}</li>" for k, name in enumerate(classes)
    )
    return f'<ul class="swatches">{items}</ul>'


def _swatch(classes: Sequence[str], k: int) -> str:
    red, green, blue = class_colours(classes)[k].tolist()
    return f'<i class="swatch" style="background:rgb({red} {green} {blue})"></i>'
