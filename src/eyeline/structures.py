"""What flows between the parts of a detector.

Boxes are xyxy, float32, in pixels, x to the right and y down. Labels are 0 .. K-1; background
has no label.

Letters   B pictures, G objects of a picture, D detections at most, H and W of the padded batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

# boxes (G, 4), labels (G,) int64; optional iscrowd (G,) bool: objects that are never positive and
# count as "ignore" (COCO's crowds, VOC's difficult, KITTI's DontCare); optional masks (G, H, W)
# bool; optional keypoints (G, P, 3): x, y, and 0 not labelled (then x and y are 0), 1 hidden, 2
# visible; of the picture, optional image_id, resized () bool: it is in the network's size already,
# seed () int64: of what is drawn for it, size () int64: what its shorter side is to be, map (H, W)
# uint8 or int64: the class of each pixel, 255 ignored (a segmenter's target has no boxes), and
# mirrored (P,) int64: which point takes the place of each where left and right are exchanged.
Target = dict[str, Tensor]
# All others have one row an object.
PER_PICTURE = ("image_id", "resized", "seed", "size", "mirrored", "map")
# boxes (N, 4), scores (N,), labels (N,) int64, best first; optional masks (N, H, W) bool.
Prediction = dict[str, Tensor]


@dataclass
class Batch:
    """Pictures as a network takes them: resized, normalised, padded, with what undoes it."""

    images: Tensor  # (B, 3, H, W), normalised; padded right of and below each picture, or all round
    sizes: Tensor  # (B, 2) int64, height and width of each picture inside the padding
    original_sizes: Tensor  # (B, 2) int64, height and width of the caller's picture
    # in the resized picture's pixels; masks (G, H_i, W_i) bool where the model needs them
    targets: list[Target] | None = None
    offsets: Tensor | None = None  # (B, 2) int64: row and column at which each begins; None: 0, 0

    def inside(self, i: int, image: Tensor | None = None) -> Tensor:
        """A picture (..., H_i, W_i) without its padding, or what else is as large as `images`."""
        top, left = (0, 0) if self.offsets is None else self.offsets[i].tolist()
        height, width = self.sizes[i].tolist()
        image = self.images[i] if image is None else image
        return image[..., top : top + height, left : left + width]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch on another device."""

        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """Called by torch's DataLoader; page-locks all of it, or `to` could not but wait."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        targets = self.targets
        if targets is not None:
            targets = [{key: change(value) for key, value in t.items()} for t in targets]
        return replace(
            self,
            images=change(self.images),
            sizes=change(self.sizes),
            original_sizes=change(self.original_sizes),
            targets=targets,
            offsets=None if self.offsets is None else change(self.offsets),
        )

    def __len__(self) -> int:
        return len(self.images)


class Padded(NamedTuple):
    """Detections of a batch in fixed shapes, in the resized pictures' pixels, best first."""

    boxes: Tensor  # (B, D, 4)
    scores: Tensor  # (B, D)
    labels: Tensor  # (B, D) int64
    valid: Tensor  # (B, D) bool; what stands where it is False means nothing
    masks: Tensor | None = None  # (B, D, m, m) probabilities, each over its box


# ---- what a detector shows of its work through `note`; nothing of it is made unless watched


class Candidates(NamedTuple):
    """The boxes of one stage of a detector, and what became of those of the stage before.

    Boxes are in the resized picture's pixels. Rules have short names: "top-k" (not among the best),
    "score" (not above a threshold), "background" and "objectness" (a filter before that), "size",
    "nms", "limit" (enough were kept).
    """

    boxes: Tensor  # (B, M, 4)
    scores: Tensor  # (B, M), 0 to 1
    valid: Tensor  # (B, M) bool; False: an empty slot
    parent: Tensor | None = None  # (B, M) int64, row of the stage before; None: the first stage
    labels: Tensor | None = None  # (B, M) int64; None: no class has been chosen yet
    class_scores: Tensor | None = None  # (B, M, K), where classes are scored and none is chosen
    dropped: Mapping[str, Tensor] = {}  # rule -> (B, M of the stage before) bool
    limits: Mapping[str, float] = {}  # rule -> its number
    suppressor: Tensor | None = None  # (B, M before) row of that stage that dropped it; -1: none
    overlap: Tensor | None = None  # (B, M before) their IoU


class Assignment(NamedTuple):
    """Which anchor answers for which object."""

    boxes: Tensor  # (B, G, 4) objects; zero in rows without one
    labels: Tensor  # (B, G)
    matches: Tensor  # (B, N) int64: object of each anchor, -1 background, -2 ignored
    foreground: float  # IoU from which an anchor is an object
    background: float  # below it is background


class Sample(NamedTuple):
    """The anchors that the loss sees."""

    rows: Tensor  # (B, S) int64
    filled: Tensor  # (B, S) bool; False: an empty slot
    # (B, N), where the negatives are not drawn but mined: the losses that chose them
    losses: Tensor | None = None


class Moves(NamedTuple):
    """What a grid's cells say of each of their priors, as the network puts it."""

    moves: Tensor  # (B, N, 4)
    objectness: Tensor  # (B, N)
    # What becomes of them: a kind of `eyeline.nn.cells.moved`, with objectness as a logit; or
    # "parts": centres in cells, roots of shares of the picture, objectness as it is.
    kind: str


class Cut(NamedTuple):
    """Regions that are cut out of feature maps, and how."""

    boxes: Tensor  # (R, 4), the resized picture's pixels
    picture: Tensor  # (R,) int64
    level: Tensor  # (R,) int64, 0 is the finest
    scales: tuple[float, ...]  # cells of a level to a pixel
    size: int  # bins a side
    kind: str  # "roi_align" or "roi_pool"
    sampling_ratio: int
    aligned: bool
