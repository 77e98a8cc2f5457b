"""Annotated pictures as a torch Dataset of (image, target)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from eyeline.data.annotated import AnnotatedPictures
from eyeline.data.formats import Annotations, Record, open_annotations
from eyeline.data.formats.annotations import spread, taken
from eyeline.data.headers import rotation_fault
from eyeline.data.images import image_size
from eyeline.data.transforms import Transform, resized_target
from eyeline.errors import EyelineError
from eyeline.ops.segmentations import decode_masks
from eyeline.structures import Target

SLACK = 1.0  # pixels that a box may stick out of its picture; it is clipped
NAMED = 5  # bad boxes that the error names; the rest is counted


class DetectionDataset(AnnotatedPictures):
    """(image (3, H, W) uint8, target) of each picture; of other channels see `read_image`.

    The target has boxes (G, 4), labels (G,), iscrowd (G,), image_id () and, if asked for, masks
    (G, H, W) or keypoints (G, P, 3) with mirrored (P,), which of them takes the place of each in a
    mirrored picture. Without transforms and `draft`, which would make it untrue, it also has the
    annotated area (G,).

    Args:
        annotations: of one split.
        transforms: called as transform(image, target, rng), the generator seeded by (seed,
            epoch, index): the same picture is treated alike in any process, in any order. Those
            that take several pictures get any others of this data set.
        masks: decode the segmentations.
        bad_boxes: what to do with boxes that have no area, are not finite or stick out of the
            picture by more than a pixel: "error" names them, "drop" leaves them out.
        seed: of the transforms' randomness.
        draft: decode JPEGs at 1/2, 1/4 or 1/8 where the shorter side keeps so many pixels; see
            `read_image`. Targets come in the smaller picture's pixels, to less than one of them,
            so this is for training: results of an evaluation would be of smaller pictures.
        channels: of the pictures; see `read_image`.
        keypoints: give them. Those named alike but for "left" and "right" ("left_eye") trade
            places where a picture is mirrored.
        single_from: the epoch from which on transforms that take several pictures do nothing.

    Raises:
        EyelineError: bad boxes; masks wanted that the annotations, or an object, have not;
            keypoints that they have not; a transform that is for RGB alone, and other channels.
    """

    def __init__(
        self,
        annotations: Annotations,
        transforms: Transform | None = None,
        masks: bool = False,
        bad_boxes: Literal["error", "drop"] = "error",
        seed: int = 0,
        draft: int | None = None,
        channels: int = 3,
        keypoints: bool = False,
        single_from: int | None = None,
    ) -> None:
        if bad_boxes not in ("error", "drop"):
            raise EyelineError(f'bad_boxes is "error" or "drop", not {bad_boxes!r}')
        records = [spread(record, len(annotations.classes)) for record in annotations.records]
        annotations = replace(annotations, records=without_bad_boxes(records, bad_boxes))
        super().__init__(annotations, transforms, seed, draft, channels, single_from)
        self.bad_boxes = bad_boxes
        self.mirrored: np.ndarray | None = None
        if keypoints:
            if annotations.keypoint_names is None:
                raise EyelineError(f"{annotations.source}: the annotations have no keypoints")
            self.mirrored = mirrored(annotations.keypoint_names)
        if masks:
            self.use_masks()

    @property
    def has_masks(self) -> bool:
        """Do the annotations tell the masks of their objects? Of some is enough."""
        records = self.annotations.records
        given = [record.segmentations for record in records]
        return None not in given and (
            any(any(map(bool, segmentations or ())) for segmentations in given)
            or not any(given)  # no object at all
        )

    def use_masks(self) -> None:
        """From now on targets have masks. Raises EyelineError where an object has none."""
        if not self.has_masks:
            raise EyelineError(f"{self.annotations.source}: the annotations have no masks")
        lacking = [
            record.where[i]
            for record in self.annotations.records
            for i, segmentation in enumerate(record.segmentations or ())
            if not segmentation
        ]
        if lacking:
            more = f" and {len(lacking) - NAMED} more" if len(lacking) > NAMED else ""
            raise EyelineError(
                f"objects without a mask: {'; '.join(lacking[:NAMED])}{more}; annotate their "
                "segmentation, or take them out"
            )
        self.masks = True

    def load(self, index: int) -> tuple[Tensor, Target]:
        """A picture before its transforms."""
        record = self.record(index)
        image = self.picture(record)
        seen = (image.shape[1], image.shape[2])
        height, width = seen if self.draft is None else image_size(record.path)
        if (height, width) != (record.height, record.width):
            record = self._resized(record, height, width)
        target = {
            "boxes": torch.from_numpy(record.boxes.copy()),
            "labels": torch.from_numpy(record.labels.copy()),
            "iscrowd": torch.from_numpy(record.iscrowd.copy()),
            "image_id": torch.tensor(record.image_id),
        }
        if self.masks:
            target["masks"] = torch.from_numpy(self._decode(record))
        if self.mirrored is not None:
            points = np.zeros((len(record.boxes), len(self.mirrored), 3), np.float32)
            points[:] = 0 if record.keypoints is None else record.keypoints
            target["keypoints"] = torch.from_numpy(points)
            target["mirrored"] = torch.from_numpy(self.mirrored.copy())
        target = resized_target(target, (height, width), seen)
        if self.transforms is None and record.areas is not None and seen == (height, width):
            target["area"] = torch.from_numpy(record.areas.copy())
        return image, target

    def _resized(self, record: Record, height: int, width: int) -> Record:
        """The record of a picture whose real size is not the one annotated: the real one counts."""
        if fault := rotation_fault(record, height, width):
            raise EyelineError(f"{record.path}: {fault}")
        record = replace(record, height=height, width=width)
        return without_bad_boxes([record], self.bad_boxes)[0]

    def _decode(self, record: Record) -> np.ndarray:
        try:
            return decode_masks(record.segmentations or [], record.height, record.width)
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            reason = str(error).partition("\n")[0]
            raise EyelineError(f"{record.path}: cannot decode its masks: {reason}") from None


def open_dataset(
    path: str | Path,
    split: str,
    classes: Sequence[str] | None = None,
    transforms: Transform | None = None,
    masks: bool = False,
    bad_boxes: Literal["error", "drop"] = "error",
    seed: int = 0,
    one_based: bool = False,
    draft: int | None = None,
    format: str | None = None,
    unknown: Literal["error", "ignore"] = "error",
    channels: int = 3,
    keypoints: bool = False,
    single_from: int | None = None,
) -> DetectionDataset:
    """Open one split of annotated pictures, in any format that `open_annotations` knows.

    Args:
        classes: names of the labels 0 .. K-1, usually `train_dataset.classes`, to which the
            split's own are mapped by name.

    Raises:
        EyelineError: as `open_annotations` and `DetectionDataset`.
    """
    annotations = open_annotations(path, split, classes, one_based, format, unknown)
    return DetectionDataset(
        annotations, transforms, masks, bad_boxes, seed, draft, channels, keypoints, single_from
    )


def mirrored(names: Sequence[str]) -> np.ndarray:
    """(P,) int64: of each keypoint the one with "left" and "right" exchanged in its name; itself
    where there is none."""
    sides = [("left", "right"), ("Left", "Right"), ("LEFT", "RIGHT")]
    other = {a: b for side in sides for a, b in (side, side[::-1])}
    index = {name: i for i, name in enumerate(names)}
    swapped = [re.sub("|".join(other), lambda found: other[found[0]], name) for name in names]
    return np.array([index.get(name, i) for i, name in enumerate(swapped)], np.int64)


def without_bad_boxes(records: list[Record], bad_boxes: Literal["error", "drop"]) -> list[Record]:
    """The records with boxes clipped to their pictures; bad boxes raise or are left out."""
    clean, bad = [], []
    for record in records:
        size = np.array([record.width, record.height] * 2, np.float32)
        good = sound(record.boxes, size)
        for i in np.flatnonzero(~good):
            bad.append(
                f"{record.where[i]}: {unsound(record.boxes[i], record.width, record.height)}"
            )
        record = replace(record, boxes=record.boxes.clip(0, size))
        clean.append(taken(record, np.flatnonzero(good)))
    if bad and bad_boxes == "error":
        more = f"; and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
        count = "1 bad box" if len(bad) == 1 else f"{len(bad)} bad boxes"
        raise EyelineError(
            f"{count}: {'; '.join(bad[:NAMED])}{more}; mend them, or set data.bad_boxes=drop to "
            "leave them out"
        )
    return clean


def sound(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(G,) bool: which boxes (G, 4) are finite, have an area in their pictures, and stick out by
    no more than SLACK.

    Args:
        sizes: (4,) or (G, 4), width, height, width, height.
    """
    inside = boxes.clip(0, sizes)
    # Comparisons that NaN and infinity fail.
    within = (np.abs(inside - boxes) <= SLACK).all(1)
    good: np.ndarray = within & (inside[:, 2:] > inside[:, :2]).all(1)
    return good


def unsound(box: np.ndarray, width: int, height: int) -> str:
    """In words, why a box (4,) is not sound."""
    area = (box[2:] > box[:2]).all()
    reason = f"is not inside {width}x{height}" if area else "has no area"
    return f"the box {box.tolist()} {reason}"
