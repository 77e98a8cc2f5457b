"""What flows between the parts of a detector.

Boxes are xyxy, float32, in pixels, x to the right and y down. Labels are 0 .. K-1; background
has no label.

Letters   B pictures, G objects of a picture, D detections at most, H and W of the padded batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

# boxes (G, 4), labels (G,) int64; optional iscrowd (G,) bool: objects that are never positive and
# count as "ignore" (COCO's crowds, VOC's difficult, KITTI's DontCare); optional masks (G, H, W)
# bool; of the picture, optional image_id and resized () bool: it is in the network's size already.
Target = dict[str, Tensor]
PER_PICTURE = ("image_id", "resized")  # all other entries have one row an object
# boxes (N, 4), scores (N,), labels (N,) int64, best first; optional masks (N, H, W) bool.
Prediction = dict[str, Tensor]


@dataclass
class Batch:
    """Pictures as a network takes them: resized, normalised, padded, with what undoes it."""

    images: Tensor  # (B, 3, H, W), normalised; zero right of and below each picture
    sizes: Tensor  # (B, 2) int64, height and width of each picture inside the padding
    original_sizes: Tensor  # (B, 2) int64, height and width of the caller's picture
    # in the resized picture's pixels; masks (G, H_i, W_i) bool where the model needs them
    targets: list[Target] | None = None

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
