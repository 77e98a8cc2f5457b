"""A box that is moved more than once, step by step: how near each step brings it to the objects.

Letters   M rows of a stage, G objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise

import torch

from eyeline.inspection.fate import scores_of
from eyeline.inspection.xray import BoxStage, XRay
from eyeline.ops.iou import box_iou

ENOUGH = (0.5, 0.75, 0.9)  # IoU


def moved_again(before: BoxStage, after: BoxStage) -> bool:
    """Whether each row of a stage is that of the one before, at another place."""
    rows = torch.arange(len(before.boxes))
    same = after.parent is not None and torch.equal(after.parent, rows)
    return same and not torch.equal(before.boxes, after.boxes)


def steps(x: XRay) -> list[BoxStage]:
    """The first stages in a row of which each moves the boxes of the one before; none, or two at
    least."""
    found: list[BoxStage] = []
    for before, after in pairwise(x.stages):
        if moved_again(before, after):
            found += [after] if found else [before, after]
        elif found:
            break
    return found


NONE = (
    "Does not apply: no stage of this model moves the boxes of the stage before, row by row. The "
    "way of single boxes is below, under “Final boxes”."
)


def tables(x: XRay, names: Sequence[str]) -> str:
    """The section's tables as HTML; "" where `steps` finds none."""
    found = steps(x)
    if not found:
        return ""
    objects = labels = None
    if x.target is not None and not x.crowd.all():
        objects = x.to_network(x.target["boxes"])[~x.crowd]
        labels = x.target["labels"][~x.crowd].tolist()
    heads = ["step", "boxes", "left out here"]
    if objects is not None:
        heads += ["mean IoU of the best", *(f"objects overlapped by {t:g}" for t in ENOUGH)]
    rows = []
    for i, stage in enumerate(found):
        count = int(stage.valid.sum())
        last = int(found[i - 1].valid.sum()) if i else len(stage.boxes)
        row = [stage.name, f"{count:,}", f"{last - count:,}"]
        if objects is not None:
            overlap = box_iou(objects, stage.boxes[stage.valid])  # (G, boxes)
            best = overlap.amax(1) if count else torch.zeros(len(objects))
            row += [f"{float(best.mean()):.3f}"]
            row += [f"{int((best >= t).sum())} of {len(best)}" for t in ENOUGH]
        rows.append(row)
    html = _table("The boxes of each step", heads, rows)
    if objects is None or labels is None or not found[-1].valid.any():
        return html
    # Of each object the box that lies best in the end, and where it was in each step.
    alive = found[-1].valid.nonzero()[:, 0]
    nearest = alive[box_iou(objects, found[-1].boxes[alive]).argmax(1)]  # (G,)
    rows = []
    for box, label, row_ in zip(objects, labels, nearest.tolist(), strict=True):
        ious = [float(box_iou(box[None], stage.boxes[row_ : row_ + 1])) for stage in found]
        scores = (float(scores_of(stage, label)[row_]) for stage in (found[0], found[-1]))
        rows.append([names[label], *(f"{iou:.3f}" for iou in ious), *(f"{s:.3f}" for s in scores)])
    heads = ["object", *(f"IoU, {stage.name}" for stage in found)]
    heads += ["score in the first step", "score of its class in the last"]
    return html + _table("Of each object the box that ends nearest to it", heads, rows)


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"

    body = "".join(line(row, "td") for row in rows)
    return (
        f'<h4>{escape(title)}</h4><div class="scroll"><table class="plain">'
        f"<thead>{line(heads, 'th')}</thead><tbody>{body}</tbody></table></div>"
    )
