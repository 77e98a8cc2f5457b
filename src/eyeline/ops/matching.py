"""Which anchor, or region, answers for which object.

Ren et al., "Faster R-CNN", NeurIPS 2015, arXiv:1506.01497, sec. 3.1.2.

Letters   B pictures, G objects of the picture that has most, N anchors (or regions).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from eyeline.errors import EyelineError
from eyeline.ops.claims import claimed
from eyeline.ops.iou import box_ioa, box_iou
from eyeline.ops.select import may_look, take
from eyeline.structures import Target

BACKGROUND = -1
IGNORED = -2
PAIRS = 2**25  # of objects and anchors, whose IoU is held at once


def match(
    iou: Tensor,
    foreground: float,
    background: float,
    force_match: bool = False,
    ignored: Tensor | None = None,
) -> Tensor:
    """For each anchor (..., N) int64: the index of its object, BACKGROUND (-1) or IGNORED (-2).

    iou          (..., G, N) of objects and anchors; -1 where there is none in that row
    foreground   an anchor belongs to the object it overlaps most, from this IoU on
    background   below this IoU it is background; between the two it is ignored
    force_match  each object claims the anchors it overlaps most, ties included, whatever the IoU;
                 a claimed anchor goes to the object that *it* overlaps most. An object that no
                 anchor overlaps claims none.
    ignored      (..., N) bool, anchors that are ignored unless they have an object

    Raises EyelineError where `background` is above `foreground`.
    """
    if background > foreground:
        raise EyelineError(
            f"background IoU {background} is above foreground IoU {foreground}; "
            "it must be the lower, or equal"
        )
    if iou.numel():
        best, index = iou.max(-2)
        unmatched = torch.where(best < background, BACKGROUND, IGNORED)
        matches = torch.where(best >= foreground, index, unmatched)
        if force_match:
            claimed = ((iou == iou.amax(-1, keepdim=True)) & (iou > 0)).any(-2)
            matches = torch.where(claimed, index, matches)
    else:  # no object or no anchor
        shape = (*iou.shape[:-2], iou.shape[-1])
        matches = iou.new_full(shape, BACKGROUND, dtype=torch.int64)
    if ignored is not None:
        matches = torch.where(ignored & (matches < 0), IGNORED, matches)
    return matches


def ignored_by(anchors: Tensor, ignore_boxes: Tensor, threshold: float = 0.5) -> Tensor:
    """Which anchors (..., N, 4) lie in one of `ignore_boxes` (..., I, 4), such as a crowd:
    (..., N) bool.

    An anchor lies in a box that covers `threshold` of the anchor's area or more.
    """
    return (box_ioa(anchors, ignore_boxes) >= threshold).any(-1)


class Objects(NamedTuple):
    """The objects of a batch, as many rows for each picture; a row without one is zero."""

    boxes: Tensor  # (B, G, 4)
    labels: Tensor  # (B, G)
    own: Tensor  # (B, G) bool, objects to be found
    crowd: Tensor  # (B, G) bool, regions to be left alone

    def of(self, matches: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (B, N, 4) and labels (B, N) that the anchors of `match` (B, N) answer for; where it
        is below 0 they mean nothing."""
        index = matches.clamp(min=0)
        return take(self.boxes, index), take(self.labels, index)


def pad_objects(targets: Sequence[Target]) -> Objects:
    """The targets of a batch in rows of the same length, at least 1; row g stays row g."""
    none = max(0, 1 - max(len(target["boxes"]) for target in targets))
    boxes, labels, crowd, real = (
        torch.nn.functional.pad(pad_sequence(list(parts), batch_first=True), padding)
        for parts, padding in (
            ([t["boxes"] for t in targets], (0, 0, 0, none)),
            ([t["labels"] for t in targets], (0, none)),
            ([t["iscrowd"] for t in targets], (0, none)),
            ([torch.ones_like(t["iscrowd"]) for t in targets], (0, none)),
        )
    )
    return Objects(boxes, labels, real & ~crowd, crowd)


def assign(
    anchors: Tensor,
    objects: Objects,
    foreground: float,
    background: float,
    force_match: bool = False,
    claims: str | None = None,
) -> Tensor:
    """`match` of anchors (N, 4), or regions (B, N, 4), to each picture's objects: (B, N), of which
    those that lie in a crowd are ignored. With `claims` each object gets an anchor first, as
    `eyeline.ops.claims.claimed` says.

    A GPU takes many pictures at once, as far as memory goes; a CPU one by one, which its caches
    hold, and without the rows that are no objects.
    """
    how = (foreground, background, force_match, claims)
    anchors = anchors.expand(len(objects.own), -1, -1)
    if may_look(objects.own):
        found = []
        for own_anchors, *row in zip(anchors, *objects, strict=True):
            count = int((row[2] | row[3]).sum())  # objects and crowds come first
            found.append(_assign(own_anchors, Objects(*(part[:count] for part in row)), *how))
        return torch.stack(found)
    size = max(1, PAIRS // (anchors.shape[1] * objects.own.shape[1]))
    parts = zip(anchors.split(size), *(part.split(size) for part in objects), strict=True)
    return torch.cat([_assign(own_anchors, Objects(*rows), *how) for own_anchors, *rows in parts])


def _assign(
    anchors: Tensor,
    objects: Objects,
    foreground: float,
    background: float,
    force_match: bool,
    claims: str | None,
) -> Tensor:
    """The same for anchors (..., N, 4) and objects whose rows are (..., G)."""
    iou = box_iou(objects.boxes, anchors).masked_fill(~objects.own[..., None], -1)  # (..., G, N)
    ignored = None
    if not may_look(objects.crowd) or objects.crowd.any():
        nowhere = objects.boxes.masked_fill(~objects.crowd[..., None], 0)
        ignored = ignored_by(anchors, nowhere)
    matches = match(iou, foreground, background, force_match, ignored)
    if claims is None:
        return matches
    own = claimed(iou, claims)
    return torch.where(own >= 0, own, matches)
