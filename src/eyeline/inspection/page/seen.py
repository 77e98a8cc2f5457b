"""What the sections show of an x-ray, as plain data for the page's script.

Each function gives the data of one section, or the sentence that says why there is none. Boxes
are in the resized picture's pixels.

Letters   M rows of a stage, N anchors, G objects, A anchors of a cell.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from eyeline.evaluation.html import picture_uri
from eyeline.inspection.page.packing import numbers, packed, shares
from eyeline.inspection.page.pictures import (
    components,
    in_colours,
    normalised,
    photograph,
    strongest,
)
from eyeline.inspection.xray import BoxStage, XRay
from eyeline.ops.iou import box_iou

CHANNELS = 9  # of a map that are shown
RECALL_AT = (0.5, 0.75)  # IoU
# Of an anchor, as its number on the page; "forced" is positive below the foreground IoU.
KINDS = ("background", "positive", "forced", "ignored")


def level_names(name: str, count: int) -> list[str]:
    """C2, C3 ... of a name with "C2 to C5"; else 1, 2 ..."""
    found = re.search(r"\b([A-Z])(\d) to \1\d\b", name)
    if found is None:
        return [str(i + 1) for i in range(count)]
    return [f"{found[1]}{int(found[2]) + i}" for i in range(count)]


def two_stages(x: XRay) -> bool:
    """Does a second stage look at the proposals of a first?"""
    return bool(x.cuts)


def nms_stage(x: XRay) -> int | None:
    """The first stage that NMS has thinned out."""
    return next((i for i, stage in enumerate(x.stages) if "nms" in stage.limits), None)


def picture(x: XRay) -> dict[str, Any]:
    """`photo` is drawn over the `height` and `width` in whose pixels all boxes are; `given` is the
    picture before anything was done to it, None where that is `photo`; `inside` is the part of
    what the network sees, `seen`, that is the picture and not padded."""
    height, width = x.batch.sizes[0].tolist()
    left, top = x.begin[:2].tolist()
    inside = [left, top, left + width, top + height]
    seen, photo, given = x.batch.images[0], x.image, None
    if x.batch.offsets is not None:  # what is padded all round is shown so
        given = picture_uri(photograph(x.image), "JPEG")
        height, width = seen.shape[1:]
        mean, std = (
            torch.tensor(values)[:, None, None]
            for values in (x.model.preprocess.mean, x.model.preprocess.std)
        )
        photo = (seen * std + mean).clamp(0, 1)
    return {
        "photo": picture_uri(photograph(photo), "JPEG"),
        "given": given,
        "seen": picture_uri(normalised(seen), "JPEG"),
        "height": height,
        "width": width,
        "padded": list(seen.shape[1:]),
        "inside": inside,
        "padding": "0" if x.batch.offsets is None else "grey",
        "original": list(x.image.shape[1:]),
    }


def features(x: XRay) -> list[dict[str, Any]] | str:
    if not x.maps:
        return "This model's file notes no feature maps."
    found = []
    for name, maps in x.maps.items():
        for level, features in zip(level_names(name, len(maps)), maps, strict=True):
            shown, explained = components(features)
            index, energy = strongest(features, CHANNELS)
            found.append({
                "name": level,
                "group": name,
                "shape": list(features.shape),
                "components": picture_uri(shown),
                "explained": [round(share, 4) for share in explained],
                "channels": [
                    {
                        "channel": i,
                        "energy": round(share, 4),
                        "map": picture_uri(in_colours(features[i])),
                    }
                    for i, share in zip(index, energy, strict=True)
                ],
            })  # fmt: skip
    return found


def objects(x: XRay, names: list[str]) -> list[dict[str, Any]]:
    """The annotation's objects, crowds among them."""
    if x.target is None:
        return []
    boxes, labels = x.to_network(x.target["boxes"]), x.target["labels"].tolist()
    return [
        {"box": numbers(box), "label": names[label], "crowd": is_crowd}
        for box, label, is_crowd in zip(boxes, labels, x.crowd.tolist(), strict=True)
    ]


def anchors(x: XRay, names: list[str]) -> dict[str, Any] | str:
    if not x.anchors:
        return "This model's file notes no anchors."
    if x.pyramid is None:
        return (
            "The anchors that this model's file notes do not stand in the cells of maps that it "
            "notes, or are not the rows of its first stage."
        )
    levels, first = [], 0
    padded_height, padded_width = x.batch.images.shape[2:]
    shown = level_names(x.pyramid, len(x.anchors))
    for name, boxes, (height, width) in zip(shown, x.anchors, x.grids, strict=True):
        grid = boxes.view(height, width, -1, 4)
        step = [
            float(grid[-1, 0, 0, 1] - grid[0, 0, 0, 1]) / max(height - 1, 1),
            float(grid[0, -1, 0, 0] - grid[0, 0, 0, 0]) / max(width - 1, 1),
        ]
        levels.append({
            "name": name, "height": height, "width": width, "first": first,
            "step": [step[0] or padded_height / height, step[1] or padded_width / width],
            "shapes": numbers(grid[0, 0], 3),
        })  # fmt: skip
        first += len(boxes)
    stage = x.stages[0]
    found: dict[str, Any] = {"levels": levels, "scores": shares(stage.scores)}
    if stage.class_scores is not None:
        found["labels"] = packed(stage.class_scores.argmax(-1), "uint16")
        found["classes"] = names
    if x.target is not None:
        found |= _assigned(x)
    return found


def _assigned(x: XRay) -> dict[str, Any]:
    """What the annotation makes of each anchor."""
    if x.learning is None:
        return {"missing": x.learning_missing}
    assignment, all_anchors = x.learning.assignment, torch.cat(x.anchors)
    own = (~x.crowd).nonzero()[:, 0]
    matches = assignment.matches.cpu()
    if len(own):
        iou, nearest = box_iou(assignment.boxes[own].cpu(), all_anchors.cpu()).max(0)
        found = own[nearest]
    else:
        iou = torch.zeros(len(matches))
        found = torch.full_like(matches, -1)
    kinds = torch.zeros_like(matches)
    kinds[matches >= 0] = KINDS.index("positive")
    kinds[(matches >= 0) & (iou < assignment.foreground)] = KINDS.index("forced")
    kinds[matches == -2] = KINDS.index("ignored")
    sampled = torch.zeros_like(matches)
    if x.learning.sample is not None:
        sampled[torch.cat([x.learning.sample.positive, x.learning.sample.negative]).cpu()] = 1
    else:
        sampled[matches > -2] = 1
    return {
        "iou": shares(iou),
        "object": packed(found, "int16"),
        "kind": packed(kinds, "uint8"),
        "sampled": packed(sampled, "uint8"),
        "sampler": x.learning.sample is not None,
        "foreground": assignment.foreground,
        "background": assignment.background,
        "kinds": KINDS,
        "counts": _counts(x, kinds, sampled),
    }


def _counts(x: XRay, kinds: Tensor, sampled: Tensor) -> list[dict[str, int]]:
    """Of each level, how many anchors there are of each kind."""
    counts = [len(level) for level in x.anchors]
    rows = []
    for kind, taken in zip(kinds.split(counts), sampled.split(counts), strict=True):
        of_kind = {name: int((kind == i).sum()) for i, name in enumerate(KINDS)}
        object_like = (kind == 1) | (kind == 2)
        rows.append({
            "anchors": len(kind), **of_kind,
            "sampled": int((taken.bool() & object_like).sum()),
            "sampled background": int((taken.bool() & ~object_like).sum()),
        })  # fmt: skip
    return rows


def proposals(x: XRay) -> dict[str, Any] | str:
    """Boxes before and after the first NMS, best first; "from" has the place of each one after
    among those before, "by" for each one before the place of the one that suppressed it, or -1."""
    last = nms_stage(x)
    if last is None or last == 0:
        return "This model does not thin out its boxes by NMS."
    before, after = x.stages[last - 1], x.stages[last]
    found: dict[str, Any] = {
        "before": _best_first(before), "after": _best_first(after),
        "names": [before.name, after.name],
        "limits": after.limits,
        "classed": after.labels is not None,
        "dropped": {rule: int(mask.sum()) for rule, mask in after.dropped.items()},
    }  # fmt: skip
    if after.suppressor is not None and after.overlap is not None and after.parent is not None:
        rank = torch.full((len(before.boxes),), -1)
        rank[ranked(before)] = torch.arange(int(before.valid.sum()))
        by = after.suppressor[ranked(before)]
        found["from"] = packed(rank[after.parent[ranked(after)]], "int16")
        found["by"] = packed(torch.where(by >= 0, rank[by.clamp(min=0)], -1), "int16")
        found["overlap"] = shares(after.overlap[ranked(before)])
    if x.target is not None:
        boxes = x.to_network(x.target["boxes"])[~x.crowd]
        found["objects"] = len(boxes)
        found["recall"] = {
            key: {str(t): found_at(boxes, stage, t) for t in RECALL_AT}
            for key, stage in (("before", before), ("after", after))
        }
    return found


def _best_first(stage: BoxStage) -> dict[str, Any]:
    rows = ranked(stage)
    return {
        "count": len(rows),
        "boxes": packed(stage.boxes[rows], "float32"),
        "scores": shares(stage.scores[rows]),
    }


def ranked(stage: BoxStage) -> Tensor:
    """The rows of a stage that are meant, best first."""
    rows = stage.valid.nonzero()[:, 0]
    return rows[stage.scores[rows].argsort(descending=True, stable=True)]


def found_at(boxes: Tensor, stage: BoxStage, iou: float) -> list[int]:
    """How many of a stage's best it takes until each object of `boxes` (G, 4) is overlapped by
    `iou`, ascending; objects that none overlaps are left out. Classes do not count."""
    rows = ranked(stage)
    if not len(boxes) or not len(rows):
        return []
    over = box_iou(boxes, stage.boxes[rows]) >= iou  # (G, M)
    first = over.int().argmax(1) + 1
    return sorted(first[over.any(1)].tolist())
