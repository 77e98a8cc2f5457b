"""Test-time augmentation: a detector looks several times, at other sizes and mirrored.

The twelve passes, and what each scale may report, are the multi-scale test of RefineDet's authors:
Zhang et al., "Single-Shot Refinement Neural Network for Object Detection", CVPR 2018,
arXiv:1711.06897, sec. 4, and their code for an input of 320. All boxes then go through one NMS and
one vote (`eyeline.ops.suppression`).

A detector whose pictures have one size (SSD, RefineDet, YOLO) gets a square of another: its maps
have more cells or fewer, and its anchors are as large in pixels as ever, which is larger or smaller
in the picture. So a larger square shows it smaller objects.

Departs   Their limits are pixels of VOC's pictures, whose longer side is 500; here they are shares
          of the longer side, so that they mean the same for pictures of any size. There, a box
          votes for the best box it overlaps only; here, for every kept one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from eyeline.errors import EyelineError
from eyeline.nn.detector import suppression
from eyeline.ops.select import take
from eyeline.structures import Batch, Padded, Prediction, Target


@dataclass(frozen=True)
class Pass:
    """One look at a picture."""

    ratio: float = 1.0  # of the detector's own size
    flip: bool = False
    # Reported are boxes whose longer side is at least `smallest` and whose shorter side is below
    # `largest`, both shares of the picture's longer side.
    smallest: float = 0.0
    largest: float = math.inf


TWELVE = tuple(
    Pass(ratio, flip, smallest, largest)
    for ratio, smallest, largest in (
        (1.0, 0.0, math.inf),
        (0.6, 32 / 500, math.inf),  # made smaller: large objects
        (1.2, 0.0, 160 / 500),  # made larger: small objects
        (1.4, 0.0, 128 / 500),
        (1.6, 0.0, 96 / 500),
        (1.8, 0.0, 64 / 500),
    )
    for flip in (False, True)
)


@dataclass(frozen=True)
class TTA:
    """Which passes are made, and how their boxes become one.

    Args:
        passes: by default the twelve. A single pass is not merged with anything: what it reports
            is the result.
        nms_iou: overlap from which a box is the same object as a better one; the kind of NMS, and
            whether classes matter, are the detector's own.
        vote_iou: overlap from which a box has a say in where a kept one lies; None: no voting.
    """

    passes: tuple[Pass, ...] = TWELVE
    nms_iou: float = 0.45
    vote_iou: float | None = 0.45

    def __post_init__(self) -> None:
        if not self.passes or any(not p.ratio > 0 for p in self.passes):
            raise EyelineError("test-time augmentation takes at least one pass, of a ratio above 0")
        for name, value in (("nms_iou", self.nms_iou), ("vote_iou", self.vote_iou)):
            if value is not None and not 0 <= value <= 1:
                raise EyelineError(f"{name} must be from 0 to 1, not {value!r}")

    @classmethod
    def merging(cls, options: Mapping[str, Any], ratios: Sequence[float] = ()) -> TTA:
        """The twelve passes, or those of some `ratios` alone, merged by the `nms_iou` and
        `vote_iou` among a detector's options, where given; see `eyeline.inference.options`.

        Raises EyelineError where no pass is made at one of the ratios, or 1 is not among them.
        """
        known = list(dict.fromkeys(one.ratio for one in TWELVE))
        if unknown := [ratio for ratio in ratios if ratio not in known]:
            told = ", ".join(f"{ratio:g}" for ratio in known)
            raise EyelineError(f"no pass is made at {unknown[0]:g} of the size; there are: {told}")
        if ratios and 1.0 not in ratios:  # each other one may report objects of some sizes only
            raise EyelineError(
                "1 must be among the sizes of test-time augmentation: only the passes at the "
                "detector's own size report objects of every size"
            )
        passes = tuple(one for one in TWELVE if not ratios or one.ratio in ratios)
        given = {key: options.get(key) for key in ("nms_iou", "vote_iou")}
        return cls(passes, **{key: value for key, value in given.items() if value is not None})

    def told(self) -> str:
        """Which passes are made, in words."""
        if self.passes == TWELVE:
            return "twelve passes"
        ratios = list(dict.fromkeys(one.ratio for one in self.passes))
        sizes = "size" if len(ratios) == 1 else "sizes"
        kinds = dict.fromkeys("mirrored" if one.flip else "plain" for one in self.passes)
        return f"{sizes} {', '.join(f'{ratio:g}' for ratio in ratios)}, {' and '.join(kinds)}"


class Passes(list[Batch]):
    """The same pictures prepared for each pass."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Passes:
        return Passes(batch.to(device, non_blocking) for batch in self)

    @property
    def original_sizes(self) -> Tensor:
        return self[0].original_sizes


class Augmented(nn.Module):
    """A detector that makes several passes; called like the detector itself.

    `prepare`, `compute` and `finish` have the detector's meaning, with a `Batch` for every pass.
    """

    def __init__(self, model: nn.Module, tta: TTA | None = None) -> None:
        super().__init__()
        for part in ("preprocess", "compute", "finish", "config"):
            if not hasattr(model, part):
                raise EyelineError(
                    f"test-time augmentation takes a detector of eyeline; {type(model).__name__} "
                    f"has no {part!r}"
                )
        self.model: Any = model
        self.tta = TTA() if tta is None else tta

    @property
    def config(self) -> Any:
        return self.model.config

    @property
    def classes(self) -> list[str]:
        return list(self.model.classes)

    @property
    def name(self) -> str:
        return str(self.model.name)

    def prepare(self, images: Sequence[Tensor] | Passes) -> Passes:
        """Pictures (C, H, W) of any sizes, prepared for every pass."""
        if isinstance(images, Passes):
            return images
        if isinstance(images, Batch):
            raise EyelineError("test-time augmentation takes the pictures themselves, not a Batch")
        passes = Passes()
        for one in self.tta.passes:
            preprocess = copy(self.model.preprocess)
            preprocess.min_size = max(1, round(preprocess.min_size * one.ratio))
            preprocess.max_size = max(1, round(preprocess.max_size * one.ratio))
            passes.append(preprocess([image.flip(-1) if one.flip else image for image in images]))
        return passes

    def compute(self, passes: Passes) -> Padded:
        """Every pass through the network, merged; boxes in the caller's pixels already."""
        looks = [
            in_picture(self.model.compute(batch), one, batch)
            for one, batch in zip(self.tta.passes, passes, strict=True)
        ]
        return looks[0] if len(looks) == 1 else self.merge(looks)

    def merge(self, looks: list[Padded]) -> Padded:
        """What several passes found to one: NMS, then the vote."""
        columns: Any = zip(*looks, strict=True)
        whole: Any = (None if part[0] is None else torch.cat(part, 1) for part in columns)
        joined = Padded(*whole)
        config = self.config
        how = replace(suppression(config), vote_iou=self.tta.vote_iou)
        merged, index = how.select(*joined[:4], self.tta.nms_iou, config.max_detections)
        masks = None if joined.masks is None else take(joined.masks, index)
        return merged._replace(masks=masks)

    def finish(self, padded: Padded, passes: Passes) -> list[Prediction]:
        """Detections without the empty slots, as the detector gives them."""
        found: list[Prediction] = self.model.finish(
            padded, replace(passes[0], sizes=passes.original_sizes)
        )
        return found

    def forward(
        self, images: Sequence[Tensor] | Passes, targets: Sequence[Target] | None = None
    ) -> list[Prediction] | Any:
        """Predictions as the detector gives them; losses, where targets are given, are its own."""
        if targets is not None:
            return self.model(images, targets)
        passes = self.prepare(images).to(next(self.parameters()).device)
        return self.finish(self.compute(passes), passes)


def in_picture(padded: Padded, one: Pass, batch: Batch) -> Padded:
    """What a pass found, in the pixels of the caller's pictures, without what it may not report."""
    sizes = batch.original_sizes
    boxes = padded.boxes * (sizes / batch.sizes).flip(1).repeat(1, 2)[:, None]  # (B, D, 4)
    masks = padded.masks
    if one.flip:
        x1, y1, x2, y2 = boxes.unbind(-1)
        width = sizes[:, 1, None]
        boxes = torch.stack([width - x2, y1, width - x1, y2], -1)
        masks = None if masks is None else masks.flip(-1)  # (B, D, m, m), each over its box
    sides = (boxes[..., 2:] - boxes[..., :2]) / sizes.amax(1)[:, None, None]
    reported = (sides.amax(-1) >= one.smallest) & (sides.amin(-1) < one.largest)
    return padded._replace(boxes=boxes, valid=padded.valid & reported, masks=masks)
