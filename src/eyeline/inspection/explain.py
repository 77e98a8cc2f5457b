"""One page that shows what a detector did with one picture, stage by stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import torch

from eyeline.evaluation.html import ALERTS, document, facts, scripts
from eyeline.inspection.map_xray import MapXRay
from eyeline.inspection.page import attention as page_attention
from eyeline.inspection.page import cells, found, mining, seen, steps
from eyeline.inspection.page.attention import Attention
from eyeline.inspection.page.maps import map_page
from eyeline.inspection.page.pictures import colours
from eyeline.inspection.page.source import beginning_of, source_of
from eyeline.inspection.xray import XRay, of_kind
from eyeline.nn.detector import Preprocess
from eyeline.structures import Moves

HERE = Path(__file__).parent / "page"
SCRIPTS = (
    "common.js", "base.js", "controls.js", "scene.js", "features.js", "anchors.js", "cells.js",
    "mining.js", "proposals.js", "regions.js", "stages.js", "boxes.js", "attention.js", "main.js",
)  # fmt: skip

PREPARED = {"the picture, prepared": beginning_of(Preprocess.pixels)}


@dataclass(frozen=True)
class Section:
    """A part of the page: static HTML, the data of its script, or why there is none."""

    id: str
    title: str
    intro: str
    data: Any  # a str: why there is none
    lines: tuple[str, ...] = ()  # names of the values whose lines are shown
    html: str = ""


def explain(
    x: XRay | MapXRay,
    title: str,
    picture: str,
    attention: Sequence[Attention] | str | None = None,
    subtitle: str = "",
) -> str:
    """The page, as HTML that needs no other file.

    Args:
        title: of the model: its name, or its run.
        picture: its name.
        attention: what `eyeline.inspection.page.attention.attention` gives, maps or
            why there are none; None leaves it out.
        subtitle: a sentence below the title, such as where the annotation is from.

    Of what `xray_map` saw it is a page of its own, without attention.
    """
    if isinstance(x, MapXRay):
        return map_page(x, title, picture, subtitle)
    names = class_names(x)
    sections = _sections(x, names, attention)
    data = {s.id: None if isinstance(s.data, str) else s.data for s in sections}
    data["objects"] = seen.objects(x, names)
    data["colours"] = colours(64).tolist()
    nav = "".join(f'<li><a href="#{s.id}">{escape(s.title)}</a></li>' for s in sections)
    body = (
        f"<header><h1>{escape(title)}</h1><p>{escape(picture)}. {escape(subtitle)}</p>"
        f"{ALERTS}</header>\n"
        f'<nav aria-label="Sections"><ul>{nav}</ul></nav>\n<main>'
        + "".join(_html(section, x) for section in sections)
        + "</main>\n"
        + scripts(data, [HERE / name for name in SCRIPTS])
    )
    style = (HERE / "explain.css").read_text(encoding="utf-8")
    return document(f"{title}: {picture}", body, style)


def class_names(x: XRay) -> list[str]:
    """Of the model's classes, by number where they have none."""
    return getattr(x.model, "classes", None) or [
        f"class {i}" for i in range(x.model.config.num_classes)
    ]


def _html(section: Section, x: XRay) -> str:
    if isinstance(section.data, str):
        inner = f'<p class="reason">{escape(section.data)}</p>'
    else:
        inner = section.html + '<div class="view"></div>'
        if section.lines and (source := source_of(section.lines, x.lines | PREPARED)):
            inner += f'<div class="sources"><h3>The lines that computed it</h3>{source}</div>'
    return (
        f'<section id="{section.id}"><h2>{escape(section.title)}</h2>'
        f"<p>{escape(section.intro)}</p>{inner}</section>\n"
    )


def _sections(
    x: XRay, names: list[str], attention: Sequence[Attention] | str | None
) -> list[Section]:
    staged = [stage.name for stage in x.stages]
    thinned = seen.nms_stage(x) or 0
    second = staged[thinned + 1 :] if seen.two_stages(x) else staged[thinned:]
    cut = tuple(name for name in x.lines if name.startswith("regions cut"))
    matched = tuple(
        name
        for name in x.lines
        if name.startswith(("anchors", "learning: sampled anchors"))
        or (name.startswith("learning: ") and " matched to objects" in name)
    )
    mined = tuple(name for name in x.lines if name.startswith("learning: positives and hardest"))
    moved = steps.tables(x, names)
    staged_boxes = found.stages(x, names)
    said = cells.cells(x, names)
    boxes_of = "proposals" if seen.two_stages(x) else "candidates"
    return [
        Section("picture", "The picture", _about_picture(x), seen.picture(x), tuple(PREPARED),
                _sizes(x)),
        Section(
            "features", "Features",
            "What the backbone and the pyramid make of it. Large, the three directions in which a "
            "map's cells differ most, as red, green and blue: cells of one colour are alike to "
            "the network. Small, the channels with the highest energy and their share of it, each "
            "from dark to light.",
            seen.features(x), tuple(x.maps),
        ),
        Section(
            "anchors", "Anchors",
            "Boxes of fixed shapes that stand at each cell of each level. Click a cell, or move "
            "with the arrow keys. With an annotation, what learning would make of each.",
            seen.anchors(x, names), (*matched, staged[0]),
        ),
        *([] if said is None else [Section(
            "cells", "Cell and prior",
            "The cell in which an object's centre lies answers for it, with one of its priors, or "
            "of its boxes where there are none. Choose an object or a detection, or any cell, to "
            "see what the network says there and how that becomes a box.",
            said, (*(name for name, _ in of_kind(x.shown, Moves)), *matched[-1:]),
        )]),
        Section(
            "mining", "Hard negatives",
            "Of all the anchors without an object, the loss sees those that the network is most "
            "mistaken about, some for each anchor with one. Which these are, as it is now.",
            mining.mining(x, names), mined,
        ),
        Section(
            "steps", "Step by step",
            "The boxes of a model that moves each more than once: how many are left after each "
            "step, and how near they lie to the objects.",
            {} if moved else steps.NONE, tuple(stage.name for stage in steps.steps(x)), moved,
        ),
        Section(
            "proposals", boxes_of.capitalize(),
            "The best boxes of all anchors before NMS and after it. Classes do not count here."
            if seen.two_stages(x)
            else "This model has one stage and no proposals; its candidates, one class each, take "
            "their place, before NMS and after it.",
            seen.proposals(x), tuple(staged[1 : thinned + 1]),
        ),
        Section(
            "regions", "Regions",
            "Where features are sampled for a region. RoIAlign does not round: its points lie "
            "where the box is. RoI pooling rounds the box, then each bin, to whole cells, and "
            "neighbouring bins share some.",
            found.regions(x, names), cut,
        ),
        *([] if staged_boxes is None else [Section(
            "stages", "Stages",
            "The way of a box through the cascade: the proposal, and what each head makes of the "
            "box that the head before it left. A score is what the stage's classifier gave to the "
            "detection's class where it looked, the last one that of the detection.",
            staged_boxes, tuple(name for name in staged if name.startswith(found.AFTER)),
        )]),
        Section(
            "masks", "Masks",
            "The mask of a detection as the network gives it, a probability for each of its "
            "cells, and pasted into the picture.",
            found.masks(x), tuple(name for name in x.lines if name.startswith("masks")),
        ),
        Section(
            "boxes", "Final boxes",
            "Choose a box to see where it comes from and which others it suppressed; with an "
            "annotation, choose an object that was missed to see at which step, and by which rule.",
            found.boxes(x, names), tuple(second),
        ),
        Section(
            "attention", "Attention",
            "Which cells of the backbone a score hangs on. HiResCAM weighs each cell by its own "
            "gradient, Grad-CAM and Grad-CAM++ each channel by a mean of it, which lights up what "
            "looks alike elsewhere; Eigen-CAM is of the picture alone.",
            page_attention.shown(attention),
        ),
    ]  # fmt: skip


def _about_picture(x: XRay) -> str:
    added = "zeros added right and below"
    if x.batch.offsets is not None:
        added = "in the middle of a grey square, whose pixels are those of all boxes below"
    return (
        "As it was given, and as the network sees it: resized, each channel less its mean and "
        f"divided by its deviation, {added}."
    )


def _sizes(x: XRay) -> str:
    def told(values: Any) -> str:
        return ", ".join(f"{value:.3f}" for value in values)

    height, width = x.batch.sizes[0].tolist()
    scale, tall = (
        f"{new / old:.3f}"
        for new, old in zip((width, height), (x.image.shape[2], x.image.shape[1]), strict=True)
    )
    if tall != scale:
        scale += f" in width and × {tall} in height"
    pre = x.model.preprocess
    low, high = torch.aminmax(x.batch.images[0])
    return facts({
        "given": f"{x.image.shape[2]} × {x.image.shape[1]} pixels",
        "resized": f"{width} × {height}, that is × {scale}; {pre.told()}",
        "padded": f"{x.batch.images.shape[3]} × {x.batch.images.shape[2]}, "
        f"to multiples of {pre.divisor}",
        "mean taken off": told(pre.mean),
        "divided by": told(pre.std),
        "values": f"{float(low):.2f} to {float(high):.2f}".replace("-", "−"),
    })  # fmt: skip
