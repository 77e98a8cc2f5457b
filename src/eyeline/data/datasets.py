"""Annotated pictures as a torch Dataset of (image, target)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from eyeline.data.formats import Annotations, Record, open_annotations
from eyeline.data.formats.annotations import spread, taken
from eyeline.data.headers import rotation_fault
from eyeline.data.images import image_size, read_image
from eyeline.data.packed import PackedRecords
from eyeline.data.transforms import Transform, resized_target
from eyeline.errors import EyelineError
from eyeline.ops.segmentations import decode_masks
from eyeline.structures import Target

SLACK = 1.0  # pixels that a box may stick out of its picture; it is clipped
NAMED = 5  # bad boxes that the error names; the rest is counted


class DetectionDataset(Dataset[tuple[Tensor, Target]]):
    """(image (3, H, W) uint8, target) of each picture; of other channels see `read_image`.

    The target has boxes (G, 4), labels (G,), iscrowd (G,), image_id () and, if asked for, masks
    (G, H, W). Without transforms and `draft`, which would make it untrue, it also has the
    annotated area (G,).

    Args:
        annotations: of one split.
        transforms: called as transform(image, target, rng), the generator seeded by (seed,
            epoch, index): the same picture is treated alike in any process, in any order.
        masks: decode the segmentations.
        bad_boxes: what to do with boxes that have no area, are not finite or stick out of the
            picture by more than a pixel: "error" names them, "drop" leaves them out.
        seed: of the transforms' randomness.
        draft: decode JPEGs at 1/2, 1/4 or 1/8 where the shorter side keeps so many pixels; see
            `read_image`. Targets come in the smaller picture's pixels, to less than one of them,
            so this is for training: results of an evaluation would be of smaller pictures.
        channels: of the pictures; see `read_image`.

    Raises:
        EyelineError: bad boxes; masks wanted that the annotations, or an object, have not; a
            transform that is for RGB alone, and other channels.
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
    ) -> None:
        if bad_boxes not in ("error", "drop"):
            raise EyelineError(f'bad_boxes is "error" or "drop", not {bad_boxes!r}')
        records = [spread(record, len(annotations.classes)) for record in annotations.records]
        self.annotations = replace(annotations, records=without_bad_boxes(records, bad_boxes))
        kept = sum(len(record.boxes) for record in self.annotations.records)
        self.left_out = sum(len(record.boxes) for record in records) - kept  # boxes
        self.classes = list(annotations.classes)
        self.transforms = transforms
        self.masks = False
        self.bad_boxes = bad_boxes
        self.seed = seed
        self.draft = draft
        self.channels = channels
        self.epoch = 0
        self.packed: PackedRecords | None = None
        for transform in getattr(transforms, "transforms", [transforms]):
            if channels != 3 and getattr(transform, "rgb_only", False):
                raise EyelineError(
                    f"{type(transform).__name__} is for RGB pictures, and these have {channels} "
                    "channels; take it out of data.transforms"
                )
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

    def share(self) -> None:
        """From now on pictures are read by records that processes share; call it again where
        `annotations` have changed."""
        self.packed = PackedRecords(self.annotations.records)

    def __getstate__(self) -> dict[str, Any]:
        """For a process that is not forked: what is shared goes there once."""
        if self.packed is None:
            return self.__dict__
        records: Any = self.packed
        return self.__dict__ | {"annotations": replace(self.annotations, records=records)}

    def set_epoch(self, epoch: int) -> None:
        """Choose the randomness of the transforms."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.annotations.records)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"picture {index} of {len(self)}")
        index %= len(self)
        record = (self.packed or self.annotations.records)[index]
        image = read_image(record.path, self.draft, self.channels)
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
        target = resized_target(target, (height, width), seen)
        if self.transforms is None:
            if record.areas is not None and seen == (height, width):
                target["area"] = torch.from_numpy(record.areas.copy())
            return image, target
        # index + 1: numpy's seeds (s, e) and (s, e, 0) are the same, and the loader uses (s, e).
        return self.transforms(
            image, target, np.random.default_rng((self.seed, self.epoch, index + 1))
        )

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
) -> DetectionDataset:
    """Open one split of annotated pictures, in any format that `open_annotations` knows.

    Args:
        classes: names of the labels 0 .. K-1, usually `train_dataset.classes`, to which the
            split's own are mapped by name.

    Raises:
        EyelineError: as `open_annotations` and `DetectionDataset`.
    """
    annotations = open_annotations(path, split, classes, one_based, format, unknown)
    return DetectionDataset(annotations, transforms, masks, bad_boxes, seed, draft, channels)


def without_bad_boxes(records: list[Record], bad_boxes: Literal["error", "drop"]) -> list[Record]:
    """The records with boxes clipped to their pictures; bad boxes raise or are left out."""
    clean, bad = [], []
    for record in records:
        size = np.array([record.width, record.height] * 2, np.float32)
        boxes = record.boxes.clip(0, size)
        # Comparisons that NaN and infinity fail.
        inside = (np.abs(boxes - record.boxes) <= SLACK).all(1)
        area = (record.boxes[:, 2:] > record.boxes[:, :2]).all(1)
        good = inside & (boxes[:, 2:] > boxes[:, :2]).all(1)
        for i in np.flatnonzero(~good):
            reason = f"is not inside {record.width}x{record.height}" if area[i] else "has no area"
            bad.append(f"{record.where[i]}: the box {record.boxes[i].tolist()} {reason}")
        clean.append(taken(replace(record, boxes=boxes), np.flatnonzero(good)))
    if bad and bad_boxes == "error":
        more = f"; and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
        count = "1 bad box" if len(bad) == 1 else f"{len(bad)} bad boxes"
        raise EyelineError(
            f"{count}: {'; '.join(bad[:NAMED])}{more}; mend them, or set data.bad_boxes=drop to "
            "leave them out"
        )
    return clean
