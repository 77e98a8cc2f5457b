"""What every torch Dataset of annotated pictures does: order, randomness, transforms, sharing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from eyeline.data.faults import Fault
from eyeline.data.formats import Annotations, Record
from eyeline.data.images import read_image
from eyeline.data.packed import PackedRecords
from eyeline.data.transforms import Transform, apply, without_others
from eyeline.errors import EyelineError
from eyeline.structures import Target


class AnnotatedPictures(Dataset[tuple[Tensor, Target]]):
    """(image (C, H, W), target) of each picture; a task's class has `load`.

    Args:
        annotations: of one split.
        transforms: called as transform(image, target, rng), the generator seeded by (seed,
            epoch, index): the same picture is treated alike in any process, in any order. Those
            that take several pictures get any others of this data set.
        seed: of the transforms' randomness.
        draft: decode JPEGs at 1/2, 1/4 or 1/8 where the shorter side keeps so many pixels; see
            `read_image`.
        channels: of the pictures; see `read_image`.
        single_from: the epoch from which on transforms that take several pictures do nothing.

    Raises:
        EyelineError: a transform that is for RGB alone, and other channels.
    """

    masks = False  # do the targets have the objects' masks?

    def __init__(
        self,
        annotations: Annotations,
        transforms: Transform | None = None,
        seed: int = 0,
        draft: int | None = None,
        channels: int = 3,
        single_from: int | None = None,
    ) -> None:
        self.annotations = annotations
        self.classes = list(annotations.classes)
        self.seed = seed
        self.draft = draft
        self.channels = channels
        self.single_from = single_from
        self.epoch = 0
        self.packed: PackedRecords | None = None
        self.left_out: list[Fault] = []  # what a tolerant reader left out of all the data
        self.transforms: Transform | None = None
        if transforms is not None:
            self.use_transforms(transforms)

    def load(self, index: int) -> tuple[Tensor, Target]:
        """A picture before its transforms."""
        raise NotImplementedError

    def use_transforms(self, transforms: Transform) -> None:
        """From now on. Raises EyelineError where they are for pictures of other channels."""
        for transform in getattr(transforms, "transforms", [transforms]):
            if self.channels != 3 and getattr(transform, "rgb_only", False):
                raise EyelineError(
                    f"{type(transform).__name__} is for RGB pictures, and these have "
                    f"{self.channels} channels; take it out of data.transforms"
                )
        self.transforms = transforms

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
        if self.transforms is None:
            return self.load(index)
        # index + 1: numpy's seeds (s, e) and (s, e, 0) are the same, and the loader uses (s, e).
        rng = np.random.default_rng((self.seed, self.epoch, index + 1))
        transforms = self.transforms
        if self.single_from is not None and self.epoch >= self.single_from:
            transforms = without_others(transforms)

        def another() -> tuple[Tensor, Target]:
            return self.load(int(rng.integers(len(self))))

        return apply(transforms, *self.load(index), rng, another)

    def record(self, index: int) -> Record:
        """Of a picture, wherever it is kept."""
        return (self.packed or self.annotations.records)[index]

    def picture(self, record: Record) -> Tensor:
        """Its pixels. Raises EyelineError where it cannot be read."""
        try:
            return read_image(record.path, self.draft, self.channels)
        except EyelineError as error:
            advice = "`eyeline data check` names all such, --tolerant leaves them out"
            raise EyelineError(f"{error}; {advice}") from None
