"""The report of an evaluation as one page: no script, no other file, light and dark, any width."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from eyeline.evaluation.evaluate import rate, show
from eyeline.inference.draw import draw_boxes, to_pil
from eyeline.metrics.detection import Curve
from eyeline.ops.segmentations import decode_masks

if TYPE_CHECKING:
    from eyeline.evaluation.evaluate import Report

THRESHOLD = 0.5  # score from which a detection is drawn, and the dots on the curves
LONGEST = 480  # pixels of a picture's longer side on the page
COLOURS = 8  # curves with a colour of their own; the others are grey

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
    facts = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in report.facts.items()
    )
    gallery = _gallery(report, pictures)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>{CSS}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
<p>{_count(len(report.predictions), "picture")}, {_count(objects, "object")},
{_count(len(report.classes), "class", "classes")}. Scores lie between 0 and 1; higher is
better.</p>
<dl class="head">{head}</dl>
</header>
<main>
<section>
<h2>How good</h2>
<div class="halves">
{_numbers("Are the boxes right?", report.coco, ("AP", "AP50", "AP75", "APs", "APm", "APl"))}
{_numbers("Are the objects found?", report.coco, ("AR1", "AR10", "AR100", "ARs", "ARm", "ARl"))}
</div>
{_masks(report)}
{_numbers("As Pascal VOC counts", report.voc, ("AP_11point", "AP_every_point"))}
</section>
<section>
<h2>Class by class</h2>
{_classes(report)}
</section>
<section>
<h2>Precision and recall</h2>
<p>From left to right the score threshold falls: more objects are found, and more of what is found
is wrong. Overlap one half; the dots lie at a score of {THRESHOLD}.</p>
{_curves(report.curves)}
</section>
{gallery}
<section>
<h2>The run</h2>
<dl class="facts">{facts}</dl>
</section>
</main>
</body>
</html>
"""


def curve_svg(curves: dict[str, Curve], width: int = 640, height: int = 420) -> str:
    """Precision over recall, both 0 to 1, as an inline SVG: one line for each curve, in order.

    The first `COLOURS` curves get the colours of the style sheet's --c0, --c1 ..., the rest grey.
    """
    left, top, right, bottom = 44, 34, width - 12, height - 46

    def x(recall: float) -> float:
        return round(left + recall * (right - left), 1)

    def y(precision: float) -> float:
        return round(bottom - precision * (bottom - top), 1)

    parts = []
    for tick in (0, 0.2, 0.4, 0.6, 0.8, 1):
        parts.append(f'<path class="grid" d="M{x(tick)} {top}V{bottom}M{left} {y(tick)}H{right}"/>')
        parts.append(f'<text x="{x(tick)}" y="{bottom + 20}" class="mid">{tick}</text>')
        parts.append(f'<text x="{left - 7}" y="{y(tick) + 4}" class="end">{tick}</text>')
    parts.append(f'<text x="{(left + right) / 2}" y="{height - 6}" class="mid">recall</text>')
    parts.append(f'<text x="{left - 32}" y="16">precision</text>')
    for i, (name, curve) in reversed(list(enumerate(curves.items()))):
        if not curve.objects or not len(curve.recall):
            continue
        kind, colour = ("", f"var(--c{i})") if i < COLOURS else (" other", "var(--other)")
        # Points in one column of pixels become its first and its last.
        columns = np.round(left + curve.recall * (right - left)).astype(int)
        first = np.flatnonzero(np.diff(columns, prepend=-1))
        last = np.append(first[1:] - 1, len(columns) - 1)
        keep = np.unique(np.concatenate([first, last]))
        start = f"M{x(0)} {y(curve.precision[0])}"
        line = "".join(f"L{x(curve.recall[j])} {y(curve.precision[j])}" for j in keep)
        parts.append(
            f'<path class="curve{kind}" style="stroke:{colour}" d="{start}{line}">'
            f"<title>{escape(name)}</title></path>"
        )
        above = int((curve.scores >= THRESHOLD).sum())
        if above and i < COLOURS:
            cx, cy = x(curve.recall[above - 1]), y(curve.precision[above - 1])
            parts.append(
                f'<circle cx="{cx}" cy="{cy}" r="4.5" style="fill:{colour}">'
                f"<title>{escape(name)} at a score of {THRESHOLD}</title></circle>"
            )
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="Precision over recall, one line a class">{"".join(parts)}</svg>'
    )


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
        mark = f'<i style="background:var(--c{i})"></i>'
        keys.append(f"<li>{mark}<b>{escape(name)}</b> <span>{at}</span></li>")
    others = sum(curve.objects > 0 for curve in curves.values()) - len(keys)
    if others:
        what = _count(others, "other class", "other classes")
        keys.append(f'<li><i style="background:var(--other)"></i>{what}</li>')
    return f'<figure class="chart">{curve_svg(curves)}<ul>{"".join(keys)}</ul></figure>'


def _numbers(
    caption: str,
    values: Mapping[str, float | None],
    names: tuple[str, ...],
    words: Mapping[str, str] = WORDS,
) -> str:
    rows = "".join(
        f'<tr><th scope="row">{NAMES.get(name, name)}</th><td class="num">{show(values[name])}'
        f"</td><td>{_bar(values[name])}<small>{words[name]}</small></td></tr>"
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
        f'<div class="halves">{_numbers("Are the masks right?", report.segm, right, words)}'
        f"{_numbers('Are the objects found by their masks?', report.segm, found, words)}</div>"
    )


def _classes(report: Report) -> str:
    keys = ["AP50", "AP75", "AR100", "AP_11point", "AP_every_point"]
    if report.segm is not None:
        keys = ["mask_AP", "mask_AP50", *keys]
    names = (NAMES.get(key, key) for key in keys)
    header = "".join(f'<th scope="col" class="num">{name}</th>' for name in names)
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="num">{row["objects"]:,}</td>'
        f'<td class="num">{show(row["AP"])}</td><td class="wide">{_bar(row["AP"])}</td>'
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


def _gallery(report: Report, pictures: int) -> str:
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
    assert report.dataset is not None
    image = to_pil(report.dataset[i][0])
    scale = LONGEST / max(image.size)  # up, too: the tags need room
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
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
    name = report.paths[i].name if report.paths else f"picture {i}"
    images = "".join(
        f'<img src="{_data_uri(side)}" width="{side.width}" height="{side.height}" '
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


def _data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _bar(value: float | None) -> str:
    if value is None or value < 0:
        return '<i class="bar"></i>'
    return f'<i class="bar"><b style="width:{100 * value:.1f}%"></b></i>'


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


CSS = """
:root { --paper: #fdfdfb; --ink: #1c2126; --soft: #5b6570; --rule: #e2e4e6; --track: #eceeef;
  --accent: #0a63b8; --other: #b9bfc5;
  --c0: #0a63b8; --c1: #c8500a; --c2: #16803c; --c3: #8a3fc4; --c4: #b3271e; --c5: #00838a;
  --c6: #94690a; --c7: #c2348b; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #15181c; --ink: #e6e9ec; --soft: #9aa5b0; --rule: #2b3138; --track: #262c32;
    --accent: #63b0ff; --other: #59626b;
    --c0: #63b0ff; --c1: #ff9a55; --c2: #5fd088; --c3: #c79bff; --c4: #ff7d72; --c5: #4fd3d8;
    --c6: #e3bd4e; --c7: #ff8fcb; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 70rem; padding: 2.5rem clamp(1rem, 4vw, 3rem) 4rem;
  background: var(--paper); color: var(--ink); font: 1rem/1.55 system-ui, -apple-system,
  "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "DejaVu Sans", sans-serif; }
h1 { font-size: clamp(1.6rem, 4vw, 2.3rem); line-height: 1.15; margin: 0 0 .4rem;
  letter-spacing: -.015em; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 3rem 0 .8rem; padding-top: 1rem;
  border-top: 1px solid var(--rule); }
p { max-width: 42rem; margin: 0 0 1rem; color: var(--soft); }
dl, dd, figure, ul { margin: 0; padding: 0; }
.head { display: flex; flex-wrap: wrap; gap: 1rem clamp(1.5rem, 5vw, 3.5rem); margin-top: 1.6rem; }
.head div { display: flex; flex-direction: column-reverse; }
.head dt { color: var(--soft); font-size: .9rem; }
.head dd { font-size: clamp(1.9rem, 6vw, 2.8rem); line-height: 1.1; font-weight: 600;
  letter-spacing: -.02em; font-variant-numeric: tabular-nums; }
.head div:first-child dd { color: var(--accent); }
table { border-collapse: collapse; width: 100%; }
caption { text-align: left; font-weight: 600; padding: .4rem 0; }
th { text-align: left; font-weight: 600; }
.num { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.halves { display: grid; grid-template-columns: 1fr 1fr; gap: 0 3rem; align-items: start; }
.numbers { margin-bottom: 1.2rem; }
.numbers th, .numbers td { padding: .45rem 0; vertical-align: baseline;
  border-top: 1px solid var(--rule); }
.numbers th { width: 1%; white-space: nowrap; padding-right: 1rem; }
.numbers .num { width: 1%; padding-right: 1rem; }
.numbers small { display: block; color: var(--soft); font-size: .82rem; line-height: 1.35; }
.bar { display: block; height: .45rem; min-width: 4rem; border-radius: .25rem;
  background: var(--track); overflow: hidden; margin: .25rem 0; }
.bar b { display: block; height: 100%; background: var(--accent); }
.scroll { overflow-x: auto; margin-bottom: 1rem; }
.classes th, .classes td { padding: .4rem 0 .4rem 1.2rem; border-top: 1px solid var(--rule); }
.classes th:first-child { padding-left: 0; position: sticky; left: 0; background: var(--paper); }
.classes thead th { color: var(--soft); font-weight: 400; font-size: .85rem; border: 0;
  white-space: nowrap; }
.classes .wide { width: 30%; min-width: 5rem; }
.chart { display: grid; grid-template-columns: minmax(0, 40rem) minmax(11rem, 1fr);
  gap: 1rem 2.5rem; align-items: start; }
.chart svg { width: 100%; height: auto; display: block; }
.chart text { fill: var(--soft); font-size: 13px; }
.chart .mid { text-anchor: middle; }
.chart .end { text-anchor: end; }
.grid { stroke: var(--rule); fill: none; }
.curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
.curve.other { stroke-width: 1; }
.chart circle { stroke: var(--paper); stroke-width: 1.5; }
.chart ul { list-style: none; }
.chart li { padding: .3rem 0 .3rem 1.4rem; position: relative; line-height: 1.35; }
.chart li i { position: absolute; left: 0; top: .72rem; width: .9rem; height: .25rem;
  border-radius: .1rem; }
.chart li span { display: block; color: var(--soft); font-size: .85rem;
  font-variant-numeric: tabular-nums; }
.gallery { display: grid; gap: 1.8rem; }
.pair { display: flex; gap: .4rem; }
.pair img { min-width: 0; max-width: calc(50% - .2rem); height: auto; display: block;
  border-radius: .2rem; }
figcaption { font-size: .85rem; color: var(--soft); margin-top: .35rem; overflow-wrap: anywhere; }
figcaption b { color: var(--ink); font-weight: 600; margin-right: .3rem; }
.facts div { display: grid; grid-template-columns: minmax(7rem, 12rem) 1fr; gap: 1rem;
  padding: .35rem 0; border-top: 1px solid var(--rule); }
.facts dt { color: var(--soft); }
.facts dd { overflow-wrap: anywhere; }
@media (max-width: 48rem) {
  body { padding-top: 1.5rem; }
  .halves, .chart { grid-template-columns: minmax(0, 1fr); }
  .classes th, .classes td { padding-left: .9rem; }
  .classes .wide { display: none; } }
@media (max-width: 30rem) {
  .head { display: grid; grid-template-columns: 1fr 1fr; }
  .chart text { font-size: 20px; }
  .pair { flex-direction: column; }
  .pair img { max-width: 100%; }
  .facts div { grid-template-columns: 1fr; gap: 0; } }
"""
