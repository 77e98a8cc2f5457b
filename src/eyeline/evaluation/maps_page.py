"""Parts of pages about segmenters: numbers, classes, pictures."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from eyeline.data.annotated import AnnotatedPictures
from eyeline.evaluation.html import bar, counted, picture_uri
from eyeline.evaluation.running import show
from eyeline.evaluation.segmentation import Example, SegmentationReport
from eyeline.inference.draw import to_pil
from eyeline.inference.overlay import hex_colours, paint_map

SIDE = 480  # of a shown picture
WORDS = {
    "mIoU": "the mean over the classes of intersection by union",
    "fw_IoU": "the same, classes weighted by their pixels",
    "pixel_accuracy": "share of the pixels whose class is right",
    "mean_pixel_accuracy": "the same of each class, the mean over the classes",
    "precision": "share of the pixels given to a class that are of it, mean over the classes",
    "recall": "share of a class\u2019s pixels that are given to it, mean over the classes",
    "F1": "of both, mean over the classes",
    "Dice": "the same number",
    "boundary_F1": "are borders where they should be? the mean over the pictures",
}


def latest(metrics: Mapping[str, float | None], epoch: int) -> str:
    """The section with the numbers of an epoch\u2019s evaluation."""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="num">{show(metrics[name])}</td>'
        f'<td class="wide">{bar(metrics[name])}</td><td>{escape(words)}</td></tr>'
        for name, words in WORDS.items()
        if name in metrics
    )
    return (
        f"<section><h2>The last evaluation, after epoch {epoch}</h2>"
        f'<div class="scroll"><table>{rows}</table></div></section>'
    )


def class_table(report: SegmentationReport) -> str:
    """A row of numbers for each class."""
    keys = [key for key in next(iter(report.per_class.values())) if key not in ("IoU", "pixels")]
    header = "".join(f'<th scope="col" class="num">{escape(key)}</th>' for key in keys)
    whole = max(1, sum(row["pixels"] for row in report.per_class.values()))
    rows = "".join(
        f'<tr><th scope="row"><i class="swatch" style="background:{colour}"></i> {escape(name)}'
        f'</th><td class="num">{row["pixels"] / whole:.1%}</td>'
        f'<td class="num">{show(row["IoU"])}</td><td class="wide">{bar(row["IoU"])}</td>'
        + "".join(f'<td class="num">{show(row[key])}</td>' for key in keys)
        + "</tr>"
        for colour, (name, row) in zip(
            hex_colours(len(report.classes)), report.per_class.items(), strict=True
        )
    )
    return (
        "<style>.swatch { display: inline-block; width: .8em; height: .8em; }</style>"
        '<div class="scroll"><table class="classes"><thead><tr><th scope="col">class</th>'
        '<th scope="col" class="num">pixels</th><th scope="col" class="num">IoU</th>'
        f'<th class="wide"></th>{header}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def gallery(report: SegmentationReport) -> str:
    """A section with the report\u2019s examples: what the model says beside what is annotated."""
    if report.dataset is None or not report.examples:
        return ""
    figures = "".join(_figure(report, example) for example in report.examples)
    shown = f"{len(report.examples)} of {counted(len(report.per_picture), 'picture')}"
    return (
        f"<section><h2>Pictures</h2><p>{shown}, spread evenly; none was picked for its looks. "
        "First what the model says, then what is annotated; grey stripes: ignored.</p>"
        f'<div class="gallery">{figures}</div></section>'
    )


def _figure(report: SegmentationReport, example: Example) -> str:
    assert report.dataset is not None
    image, target = report.dataset[example.index]
    picture = to_pil(image)
    picture.thumbnail((SIDE, SIDE))
    name = f"picture {report.image_ids[example.index]}"
    if report.paths is not None and isinstance(report.dataset, AnnotatedPictures):
        name = report.paths[example.index].name
    sides = (("said", example.classes), ("annotated", target["map"]))
    images = ""
    for what, classes in sides:
        side = paint_map(picture, classes, len(report.classes))
        images += (
            f'<img src="{picture_uri(side, "JPEG")}" width="{side.width}" height="{side.height}" '
            f'loading="lazy" alt="{escape(name)}, {what}">'
        )
    own = report.per_picture[example.index]
    return (
        f'<figure><div class="pair">{images}</div><figcaption><b>{escape(name)}</b> '
        f"mIoU {show(own['mIoU'])}</figcaption></figure>"
    )
