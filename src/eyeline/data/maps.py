"""Pictures with a class for every pixel as a torch Dataset: what segmenters learn from.

Letters   K classes, H and W the picture's height and width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from eyeline.data.annotated import AnnotatedPictures
from eyeline.data.faults import Fault
from eyeline.data.formats import Annotations, Record, open_annotations
from eyeline.data.formats.annotations import with_classes
from eyeline.data.formats.legend import NOTHING, Values
from eyeline.data.formats.semantic import read_target
from eyeline.data.images import image_size
from eyeline.data.targets import semantic_target
from eyeline.data.transforms import Transform
from eyeline.errors import EyelineError
from eyeline.ops.labels import IGNORE
from eyeline.ops.resize import resize_map
from eyeline.structures import Target

WORD = "ignore"  # in the place of a class for the background
OnTop = Literal["later", "smaller"]


class SegmentationDataset(AnnotatedPictures):
    """(image (3, H, W) uint8, target) of each picture; of other channels see `read_image`.

    The target has map (H, W) uint8, the class of each pixel, 0 .. K-1 or 255, to be ignored, and
    image_id (). The map is that of a file of masks, where the annotations have a legend for such
    files, or is made of the objects' outlines and masks: then objects to be ignored are ignored.

    Args:
        annotations: of one split; of masks they may have been read lazily.
        background: pixels that belong to no object: "ignore", or the name of a class, which
            becomes the first one where the data has no class of that name. None: there are none.
        on_top: of objects that overlap, which has the pixels: the later one in the annotations, or
            the smaller one.
        transforms, seed, draft, channels, single_from: see `AnnotatedPictures`.

    Raises:
        EyelineError: pixels without a class, and no word about them; one class alone; no class, or
            more than 255; an object without outline; a transform that is for objects, or for RGB
            alone, and other channels.
    """

    def __init__(
        self,
        annotations: Annotations,
        transforms: Transform | None = None,
        background: str | None = None,
        on_top: OnTop = "later",
        seed: int = 0,
        draft: int | None = None,
        channels: int = 3,
        single_from: int | None = None,
    ) -> None:
        if on_top not in ("later", "smaller"):
            raise EyelineError(f'on_top is "later" or "smaller", not {on_top!r}')
        annotations, self.outside = _with_background(annotations, background)
        if not 0 < len(annotations.classes) <= IGNORE:
            count = len(annotations.classes)
            raise EyelineError(f"{annotations.source}: {count} classes; a map has 1 to {IGNORE}")
        self.smaller_on_top = on_top == "smaller"
        super().__init__(annotations, transforms, seed, draft, channels, single_from)

    def use_transforms(self, transforms: Transform) -> None:
        """From now on. Raises EyelineError where they are for objects, or other channels."""
        for transform in getattr(transforms, "transforms", [transforms]):
            if advice := getattr(transform, "of_objects", None):
                raise EyelineError(
                    f"{type(transform).__name__} is for objects, and a segmenter learns a class "
                    f"for every pixel: {advice}; take it out of data.transforms"
                )
        super().use_transforms(transforms)

    def load(self, index: int) -> tuple[Tensor, Target]:
        """A picture before its transforms."""
        record = self.record(index)
        image = self.picture(record)
        seen = image.shape[1], image.shape[2]
        classes = self.classes_of(record, seen if self.draft is None else image_size(record.path))
        target = {
            "map": resize_map(torch.from_numpy(classes), seen),
            "image_id": torch.tensor(record.image_id),
        }
        return image, target

    def classes_of(self, record: Record, size: tuple[int, int]) -> np.ndarray:
        """(H, W) uint8: the map of a picture of that height and width.

        Raises EyelineError where it has another size, or a value that is no class.
        """
        legend = self.annotations.legend
        if legend is not None and record.mask is not None:
            try:
                classes = read_target(record.mask, legend, self.outside)
            except Fault as fault:
                raise EyelineError(
                    f"{fault}; it is the mask of {record.path}; `eyeline data check` names all such"
                ) from None
        else:
            classes = semantic_target(record, self.outside, self.smaller_on_top)
        if classes.shape != size:
            raise EyelineError(unlike(record, size, classes.shape))
        return classes.astype(np.uint8)


def unlike(record: Record, size: tuple[int, ...], theirs: tuple[int, ...]) -> str:
    """In words, that a picture and its map are of two sizes (height, width)."""
    what = f"its mask {record.mask}" if record.mask is not None else "its annotation"
    return (
        f"{record.path}: the picture is {size[1]}x{size[0]}, {what} {theirs[1]}x{theirs[0]}; "
        "make them one size"
    )


def open_maps(
    path: str | Path,
    split: str,
    classes: list[str] | None = None,
    transforms: Transform | None = None,
    values: Values | None = None,
    background: str | None = None,
    on_top: OnTop = "later",
    seed: int = 0,
    one_based: bool = False,
    draft: int | None = None,
    format: str | None = None,
    unknown: Literal["error", "ignore"] = "error",
    channels: int = 3,
    single_from: int | None = None,
) -> SegmentationDataset:
    """Open one split of pictures with a class for every pixel: masks, or outlines of any format
    that `open_annotations` knows.

    Args:
        classes: names of the labels 0 .. K-1, usually `train_dataset.classes`; of masks whose
            folder does not list any, the names of their numbers.
        values: what numbers in masks mean, where they are not those of the classes.

    Raises:
        EyelineError: as `open_annotations` and `SegmentationDataset`.
    """
    found = open_annotations(
        path, split, classes, one_based, format, unknown, values=values, lazy=True
    )
    return SegmentationDataset(
        found, transforms, background, on_top, seed, draft, channels, single_from
    )


def _with_background(annotations: Annotations, background: str | None) -> tuple[Annotations, int]:
    """The annotations with the class of the background among theirs, and its label."""
    legend = annotations.legend
    names = annotations.classes
    if len(names) == 1 and annotations.records and background in (None, WORD, names[0]):
        raise EyelineError(
            f"{annotations.source}: one class, {names[0]!r}, and no background: there is nothing "
            "to tell apart; name two classes, or set data.background to the name of one more"
        )
    if background is None:
        bare = legend is None or NOTHING in legend.label_of.values()
        if bare and annotations.records:
            raise EyelineError(
                f"{annotations.source}: pixels that belong to no object have no class; set "
                f"data.background={WORD}, or to the name of a class for them"
            )
        return annotations, IGNORE
    if background == WORD:
        return annotations, IGNORE
    classes = annotations.classes
    if background not in classes:
        classes = [background, *classes]
    return with_classes(annotations, classes), classes.index(background)
