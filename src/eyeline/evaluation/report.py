"""The report of an evaluation as one page: no script, no other file, light and dark, any width."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from eyeline.evaluation import diagnosis
from eyeline.evaluation.charts import COLOURS, THRESHOLD, colour, curve_svg
from eyeline.evaluation.html import bar, counted, document, facts, picture_uri
from eyeline.evaluation.running import rate, show
from eyeline.inference.draw import draw_boxes
from eyeline.metrics.detection import Curve
from eyeline.ops.segmentations import decode_masks

if TYPE_CHECKING:
    from eyeline.evaluation.evaluate import Report

WORDS = {
    "AP": "average precision, the mean over the overlaps (IoU) 0.50, 0.55 … 0.95",
    "AP50": "a box is right from an overlap of one half on",
    "AP75": "a box is right from an overlap of three quarters on",
    "APs": "AP of small objects, below 32² pixels",
    "APm": "AP of medium objects, 32² to 96² pixels",
    "APl": "AP of large objects, above 96² pixels",
    "AR1": "share of the objects found with 1 detection a picture, the mean over the overlaps",
    "AR10": "the same with 10 detections a picture",
    "AR100": "the same with 100 detections a picture",
    "ARs": "AR100 of small objects",
    "ARm": "AR100 of medium objects",
    "ARl": "AR100 of large objects",
    "AP_11point": "overlap one half, precision averaged at the recalls 0, 0.1 … 1 (11 points)",
    "AP_every_point": "overlap one half, the whole area under the curve (every point)",
}
NAMES = {
    "AP_11point": "VOC 2007",
    "AP_every_point": "VOC 2010",
    "mask_AP": "mask AP",
    "mask_AP50": "mask AP50",
}


def page(report: Report, title: str = "Evaluation", pictures: int = 12) -> str:
    """The report as HTML; up to `pictures` pictures, spread evenly over the data set."""
    objects = sum(row["objects"] for row in report.per_class.values())
    masks = [("mask AP50", show(report.segm["AP50"]))] if report.segm else []
    head = "".join(
        f"<div><dt>{name}</dt><dd>{value}</dd></div>"
        for name, value in (
            *masks,
            ("AP50", show(report.coco["AP50"])),
            ("AP", show(report.coco["AP"])),
            ("AP75", show(report.coco["AP75"])),
            ("pictures a second", rate(report.pictures_per_second)),
        )
    )
    body = f"""<header>
<h1>{escape(title)}</h1>
<p>{counted(len(report.predictions), "picture")}, {counted(objects, "object")},
{counted(len(report.classes), "class", "classes")}. Scores lie between 0 and 1; higher is
better.</p>
<dl class="head">{head}</dl>
</header>
<main>
<section>
<h2>How good</h2>
<div class="halves">
{numbers("Are the boxes right?", report.coco, ("AP", "AP50", "AP75", "APs", "APm", "APl"))}
{numbers("Are the objects found?", report.coco, ("AR1", "AR10", "AR100", "ARs", "ARm", "ARl"))}
</div>
{_masks(report)}
{numbers("As Pascal VOC counts", report.voc, ("AP_11point", "AP_every_point"))}
</section>
<section>
<h2>Class by class</h2>
{class_table(report)}
</section>
<section>
<h2>Precision and recall</h2>
<p>From left to right the score threshold falls: more objects are found, and more of what is found
is wrong. Overlap one half; the dots lie at a score of {THRESHOLD}.</p>
{_curves(report.curves)}
</section>
{diagnosis.scores(report)}
{diagnosis.confusions(report)}
{diagnosis.extremes(report, pictures // 2)}
{gallery(report, pictures)}
<section>
<h2>The run</h2>
{facts(report.facts)}
</section>
</main>
"""
    return document(title, body)


def _curves(curves: dict[str, Curve]) -> str:
    """The curves, those of the most frequent classes in colour, and what the colours mean."""
    curves = dict(sorted(curves.items(), key=lambda item: -item[1].objects))
    keys = []
    for i, (name, curve) in enumerate(curves.items()):
        if i >= COLOURS or not curve.objects:
            break
        above = int((curve.scores >= THRESHOLD).sum())
        at = (
            f"precision {curve.precision[above - 1]:.2f}, recall {curve.recall[above - 1]:.2f}"
            if above
            else "nothing found"
        )
        mark = f'<i style="background:{colour(i)}"></i>'
        keys.append(f"<li>{mark}<b>{escape(name)}</b> <span>{at}</span></li>")
    others = sum(curve.objects > 0 for curve in curves.values()) - len(keys)
    if others:
        what = counted(others, "other class", "other classes")
        keys.append(f'<li><i style="background:var(--other)"></i>{what}</li>')
    return f'<figure class="chart">{curve_svg(curves)}<ul>{"".join(keys)}</ul></figure>'


def numbers(
    caption: str,
    values: Mapping[str, float | None],
    names: tuple[str, ...],
    words: Mapping[str, str] = WORDS,
) -> str:
    """Some of the values as a table, each with a bar and what it says."""
    rows = "".join(
        f'<tr><th scope="row">{NAMES.get(name, name)}</th><td class="num">{show(values[name])}'
        f"</td><td>{bar(values[name])}<small>{words[name]}</small></td></tr>"
        for name in names
    )
    return f'<table class="numbers"><caption>{caption}</caption>{rows}</table>'


def _masks(report: Report) -> str:
    """The same for masks: overlaps are those of pixels, not of boxes."""
    if report.segm is None:
        return ""
    right = ("AP", "AP50", "AP75", "APs", "APm", "APl")
    found = ("AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
    words = WORDS | {key: WORDS[key].replace("box", "mask") for key in ("AP50", "AP75")}
    return (
        f'<div class="halves">{numbers("Are the masks right?", report.segm, right, words)}'
        f"{numbers('Are the objects found by their masks?', report.segm, found, words)}</div>"
    )


def class_table(report: Report) -> str:
    """A row of numbers for each class that the data has."""
    keys = ["AP50", "AP75", "APs", "APm", "APl", "AR100", "AP_11point", "AP_every_point"]
    if report.segm is not None:
        keys = ["mask_AP", "mask_AP50", *keys]
    names = (NAMES.get(key, key) for key in keys)
    header = "".join(f'<th scope="col" class="num">{name}</th>' for name in names)
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="num">{row["objects"]:,}</td>'
        f'<td class="num">{show(row["AP"])}</td><td class="wide">{bar(row["AP"])}</td>'
        + "".join(f'<td class="num">{show(row[key])}</td>' for key in keys)
        + "</tr>"
        for name, row in report.per_class.items()
        if row["objects"]
    )
    absent = [name for name, row in report.per_class.items() if not row["objects"]]
    note = f"<p>Not in the data: {escape(', '.join(absent))}.</p>" if absent else ""
    return (
        '<div class="scroll"><table class="classes"><thead><tr><th scope="col">class</th>'
        '<th scope="col" class="num">objects</th><th scope="col" class="num">AP</th>'
        f'<th class="wide"></th>{header}</tr></thead><tbody>{rows}</tbody></table></div>{note}'
    )


def gallery(report: Report, pictures: int) -> str:
    """A section with so many pictures, always the same: what was found beside what is annotated."""
    count = len(report.predictions)
    if report.dataset is None or not min(count, pictures):
        return ""
    chosen = np.unique(np.linspace(0, count - 1, min(count, pictures)).round().astype(int))
    figures = "".join(_figure(report, int(i)) for i in chosen)
    spread = "All of them" if len(chosen) == count else f"{len(chosen)} of {count}, spread evenly"
    return (
        f"<section><h2>Pictures</h2><p>{spread}; none was picked for its looks. First what the "
        f"detector found with a score of {THRESHOLD} or more, then what is annotated.</p>"
        f'<div class="gallery">{figures}</div></section>'
    )


def _figure(report: Report, i: int) -> str:
    image, scale, name = diagnosis.shown_picture(report, i)
    prediction, target = report.predictions[i], report.targets[i]
    drawn = prediction["scores"] >= THRESHOLD
    boxes, scores, labels = (prediction[key][drawn] for key in ("boxes", "scores", "labels"))
    truth, true_labels = target["boxes"], target["labels"]
    found_masks = _decoded(prediction, drawn.tolist())
    true_masks = _decoded(target, [True] * len(truth))
    sides = (
        (
            "found",
            draw_boxes(image, boxes.float() * scale, labels, scores, report.classes, found_masks),
        ),
        (
            "annotated",
            draw_boxes(image, truth * scale, true_labels, None, report.classes, true_masks),
        ),
    )
    images = "".join(
        f'<img src="{picture_uri(side, "JPEG")}" width="{side.width}" height="{side.height}" '
        f'loading="lazy" alt="{escape(name)}, {what}">'
        for what, side in sides
    )
    ignored = int(target["iscrowd"].sum()) if "iscrowd" in target else 0
    tail = f", {ignored} of them ignored" if ignored else ""
    return (
        f'<figure><div class="pair">{images}</div><figcaption><b>{escape(name)}</b> '
        f"{len(boxes)} found, {len(truth)} annotated{tail}</figcaption></figure>"
    )


def _decoded(row: Mapping[str, Any], chosen: list[bool]) -> np.ndarray | None:
    """The masks of those chosen, in the picture's own size."""
    if "rle" not in row:
        return None
    encoded = [rle for rle, wanted in zip(row["rle"], chosen, strict=True) if wanted]
    return decode_masks(encoded, *encoded[0]["size"]) if encoded else None
