"""What the later sections show of an x-ray: regions, masks, final boxes, missed objects.

As in `seen`, each function gives the data of one section or says why there is none.

Letters   R regions of a cut, D detections, m side of a small mask.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from eyeline.evaluation.html import picture_uri
from eyeline.inspection.fate import RULES, UNLINKED, Candidate, fates, origin, scores_of, story
from eyeline.inspection.page.packing import numbers, packed
from eyeline.inspection.page.pictures import components
from eyeline.inspection.page.seen import level_names, ranked
from eyeline.inspection.xray import XRay
from eyeline.ops.iou import box_iou
from eyeline.ops.roi_align import pool_edges, roi_align, roi_pool, sample_positions
from eyeline.structures import Cut

PROPOSALS = 40  # regions shown besides those of detections
PASTED = 100  # masks at most


def regions(x: XRay, names: list[str]) -> list[dict[str, Any]] | str:
    if not x.cuts:
        return (
            "Does not apply: this model has one stage. Classes and boxes are read from the feature "
            "maps cell by cell, and no region is cut out of them."
        )
    if not x.linked:
        return f"Not shown: {UNLINKED}."
    if not x.maps:
        return "This model's file notes no feature maps, out of which the regions are cut."
    cut_from = [(cut, stage) for cut in x.cuts if (stage := _stage_of(x, cut)) is not None]
    return [_cut(x, cut, stage, names) for cut, stage in cut_from] or (
        "The regions that this model cuts out are not the boxes of one of its stages, or not cut "
        "out of the maps that it notes last."
    )


def _stage_of(x: XRay, cut: Cut) -> int | None:
    """The stage whose boxes are the regions of a cut; None too where the maps are not its own."""
    if len(list(x.maps.values())[-1]) < len(cut.scales):
        return None
    rows = (i for i, s in enumerate(x.stages) if s.boxes.shape == cut.boxes.shape)
    return next((i for i in rows if torch.equal(x.stages[i].boxes, cut.boxes)), None)


def _cut(x: XRay, cut: Cut, stage: int, names: list[str]) -> dict[str, Any]:
    """Where a pooler samples the regions of the detections, and of the best others."""
    entries: dict[int, str] = {}
    for d, (label, score) in enumerate(_detections(x)):
        row = x.rows(d)[stage]
        title = f"#{d}: {names[label]} {score:.2f}"  # one proposal may give several
        entries[row] = f"{entries[row]}, {title}" if row in entries else f"detection {title}"
    if stage < len(x.stages) - 1:
        for row in ranked(x.stages[stage]).tolist():
            if len(entries) >= len(_detections(x)) + PROPOSALS:
                break
            entries.setdefault(row, f"proposal in row {row}")
    index = torch.tensor(list(entries), dtype=torch.int64)
    boxes, level = cut.boxes[index].cpu(), cut.level[index].cpu()
    maps = list(x.maps.values())[-1]
    extent = torch.tensor([maps[i].shape[1:] for i in level.tolist()]).view(-1, 2)
    samples = sample_positions(boxes, level, cut.size, cut.scales, cut.sampling_ratio, cut.aligned)
    edges = pool_edges(boxes, level, extent, (cut.size, cut.size), cut.scales)
    found = []
    for i, (row, title) in enumerate(entries.items()):
        y, x_ = samples[i]
        top, bottom, left, right = (edge[i].double() for edge in edges)
        cell = 1 / cut.scales[int(level[i])]  # pixels
        pooled_y, pooled_x = (top + bottom)[:, 0] / 2 * cell, (left + right)[0] / 2 * cell
        # A sample at 0 is at the centre of the first cell, which is half a cell from the border.
        aligned_y, aligned_x = (
            (axis.double().view(cut.size, -1).mean(1) + 0.5) * cell for axis in (y, x_)
        )
        off = torch.hypot((pooled_y - aligned_y)[:, None], (pooled_x - aligned_x)[None])
        found.append({
            "row": row, "title": title, "level": int(level[i]), "box": numbers(boxes[i], 2),
            "cell": cell, "y": numbers(y, 3), "x": numbers(x_, 3),
            "top": top[:, 0].tolist(), "bottom": bottom[:, 0].tolist(),
            "left": left[0].tolist(), "right": right[0].tolist(),
            "off": [round(float(off.mean()), 1), round(float(off.max()), 1)],
        })  # fmt: skip
    of_colours = [
        torch.from_numpy(np.array(components(level)[0])).permute(2, 0, 1)[None].float()
        for level in maps[: len(cut.scales)]
    ]
    where = torch.zeros_like(level)
    aligned = roi_align(
        of_colours, boxes, where, level, cut.size, cut.scales, cut.sampling_ratio, cut.aligned
    )
    pooled = roi_pool(of_colours, boxes, where, level, cut.size, cut.scales)
    return {
        # (R, 3, bins, bins): what becomes of the colours in which the maps are shown
        "aligned_crops": packed(aligned.round(), "uint8"),
        "pooled_crops": packed(pooled.round(), "uint8"),
        "size": cut.size, "kind": cut.kind, "aligned": cut.aligned,
        "detections": [x.rows(d)[stage] for d in range(len(_detections(x)))],
        "levels": level_names(list(x.maps)[-1], len(maps)), "group": list(x.maps)[-1],
        "regions": found,
    }  # fmt: skip


def _detections(x: XRay) -> list[tuple[int, float]]:
    """Label and score of each."""
    labels, scores = x.prediction["labels"].tolist(), x.prediction["scores"].tolist()
    return list(zip(labels, scores, strict=True))


AFTER = "boxes after stage"  # how a cascade calls the boxes that one head hands to the next


def stages(x: XRay, names: list[str]) -> dict[str, Any] | str | None:
    """Of each detection its box at every stage of a cascade; None where the model is none."""
    between = [i for i, stage in enumerate(x.stages) if stage.name.startswith(AFTER)]
    if not between:
        return None
    if not x.linked:
        return f"Not shown: {UNLINKED}."
    if not len(x.prediction["boxes"]):
        return "Nothing was found in this picture."
    first, last = between[0] - 1, len(x.stages) - 1
    shown = [first, *between, last]
    titles = ["proposal", *(f"after stage {t + 1}" for t in range(len(between) + 1))]
    own = torch.zeros(0, 4) if x.target is None else x.to_network(x.target["boxes"])[~x.crowd]
    found = []
    for d, (label, _) in enumerate(_detections(x)):
        rows = x.rows(d)
        boxes = torch.stack([x.stages[i].boxes[rows[i]] for i in shown])
        scores = [scores_of(x.stages[i], label)[rows[i]] for i in shown]
        entry: dict[str, Any] = {
            "boxes": numbers(boxes),
            # a proposal has no class, and its score another meaning
            "scores": [None, *(round(float(score), 4) for score in scores[1:])],
        }
        if len(own):
            overlap = box_iou(own, boxes)  # (G, stages)
            nearest = int(overlap[:, -1].argmax())
            entry |= {"iou": numbers(overlap[nearest], 3), "object": numbers(own[nearest])}
        found.append(entry)
    return {"titles": titles, "detections": found}


def masks(x: XRay) -> dict[str, Any] | str:
    if x.padded.masks is None:
        return "Does not apply: this model finds boxes and makes no masks."
    if not len(x.prediction["boxes"]):
        return "Nothing was found in this picture, so there is no mask."
    small = x.padded.masks[0][x.padded.valid[0]]
    entries = []
    height, width = x.image.shape[1:]
    threshold = getattr(x.model.config, "mask_threshold", None)
    level = 0.5 if threshold is None else threshold  # None: the prediction has probabilities
    pasted_masks = x.prediction["masks"][:PASTED]
    if pasted_masks.dtype != torch.bool:
        pasted_masks = pasted_masks >= level
    for pasted in pasted_masks.cpu():
        inside = pasted.nonzero()
        if not len(inside):
            entries.append({"box": [0, 0, 0, 0], "pasted": None})
            continue
        (top, left), (bottom, right) = inside.amin(0).tolist(), (inside.amax(0) + 1).tolist()
        alpha = Image.fromarray((pasted[top:bottom, left:right] * 255).to(torch.uint8).numpy())
        shape = Image.new("LA", alpha.size, 255)
        shape.putalpha(alpha)
        entries.append({
            # in shares of the picture, whatever its size on the page
            "box": [left / width, top / height, right / width, bottom / height],
            "pasted": picture_uri(shape),
            "pixels": len(inside),
        })  # fmt: skip
    return {
        "side": small.shape[-1],
        "threshold": level,
        "values": packed((small[:PASTED] * 255).round(), "uint8"),
        "masks": entries,
    }


def boxes(x: XRay, names: list[str]) -> dict[str, Any]:
    last = x.stages[-1]
    if not x.linked:
        return {
            "stages": [stage.name for stage in x.stages], "limits": last.limits, "fates": [],
            "missing": UNLINKED,
            "detections": [
                {"box": numbers(box), "label": names[label], "score": round(score, 4),
                 "steps": [], "anchor": None, "suppressed": []}
                for box, (label, score) in zip(
                    x.to_network(x.prediction["boxes"]), _detections(x), strict=True
                )
            ],
        }  # fmt: skip
    found = []
    for d, (label, score) in enumerate(_detections(x)):
        steps = origin(x, d)
        anchor = x.anchor(steps[0].row) if x.pyramid else None
        found.append({
            "box": numbers(steps[-1].box), "label": names[label], "score": round(score, 4),
            "steps": [_step(x, steps, i, label, names) for i in range(len(steps))],
            "anchor": None if anchor is None else {
                "level": anchor.level, "y": anchor.y, "x": anchor.x, "shape": anchor.shape,
                "box": numbers(anchor.box),
            },
            "suppressed": [
                {"iou": round(iou, 3), **_box_of(x, len(x.stages) - 2, row, names)}
                for row, iou in x.suppressed_by(d)
            ],
        })  # fmt: skip
    return {
        "stages": [stage.name for stage in x.stages],
        "limits": last.limits,
        "detections": found,
        "fates": [] if x.target is None else _fates(x, names),
    }


def _box_of(x: XRay, stage: int, row: int, names: list[str]) -> dict[str, Any]:
    s = x.stages[stage]
    return {
        "row": row,
        "box": numbers(s.boxes[row]),
        "score": round(float(s.scores[row]), 4),
        "label": None if s.labels is None else names[int(s.labels[row])],
    }


def _step(x: XRay, steps: list[Candidate], i: int, label: int, names: list[str]) -> dict[str, Any]:
    """A detection at one stage; its score there is of its own class, where classes are scored."""
    step, stage, suppressed = steps[i], x.stages[i], None
    if i and stage.suppressor is not None and "floor" not in stage.limits:  # soft NMS has none
        suppressed = int((stage.suppressor == steps[i - 1].row).sum())
    scored = stage.labels is not None or stage.class_scores is not None
    return {
        "stage": step.stage,
        "row": step.row,
        "box": numbers(step.box),
        "score": round(float(scores_of(stage, label)[step.row]), 4),
        "of": names[label] if scored else "object",
        "rows": int(stage.valid.sum()),
        "suppressed": suppressed,  # on the way into the stage
    }


def _fates(x: XRay, names: list[str]) -> list[dict[str, Any]]:
    found = []
    for fate in fates(x):
        entry: dict[str, Any] = {
            "object": fate.object, "label": names[fate.label], "detection": fate.detection,
            "iou": round(fate.iou, 3), "story": story(x, fate, names),
        }  # fmt: skip
        if fate.detection is None and fate.step is not None and fate.stage is not None:
            assert fate.rule is not None
            score = fate.step.score if fate.score is None else fate.score
            entry |= {
                "key": fate.rule,
                "rule": RULES[fate.rule],
                "stage": fate.stage,
                "candidate": {
                    "stage": fate.step.stage,
                    "row": fate.step.row,
                    "box": numbers(fate.step.box),
                    "score": round(score, 4),
                },
            }
            if fate.by is not None and fate.rule == "nms":
                entry["by"] = _box_of(x, fate.by.stage, fate.by.row, names)
        found.append(entry)
    return found
