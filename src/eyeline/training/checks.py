"""What can be known to be wrong before the first epoch is said before it."""

from __future__ import annotations

import math
from typing import Any

from torch import nn
from torch.utils.data import Dataset

from eyeline.errors import EyelineError
from eyeline.nn.segmenter import check_several, is_segmenter
from eyeline.structures import Batch

SKIPS = 30  # steps in a row; the scale has halved as often, from 65536 on


ADVICE = "lower optimizer.lr, or set clip_norm or schedule.warmup_steps"


class NotFinite(EyelineError):
    """A loss, or the gradients' norm, is NaN or infinite."""

    def __init__(self, what: str, where: str, batches: list[Any], pictures: str) -> None:
        super().__init__(f"{where}: {what}{pictures}; {ADVICE}")
        self.what, self.batches = what, batches  # "box is nan"; of those it may come from
        self.by_loss = False  # in this process
        self.step: Any = None  # the Step, which was not taken


def check_data(model: nn.Module, dataset: Dataset[Any], val_dataset: Dataset[Any] | None) -> None:
    """Do model, training and validation data agree?

    Looks at `classes` and `annotations.records` where they are there; what a data set does not
    tell beforehand, `model.prepare` checks picture by picture.

    Raises:
        EyelineError: no pictures; classes that differ, or a segmenter's only one; a label out of
            range; a bad box.
    """
    names = list(getattr(model, "classes", None) or getattr(dataset, "classes", None) or [])
    owner = "model" if getattr(model, "classes", None) else "training data"
    if is_segmenter(model):
        check_several(names)
    for split, data in (("training", dataset), ("validation", val_dataset)):
        if data is None:
            continue
        if not len(data):  # type: ignore[arg-type]
            raise EyelineError(f"the {split} data has no pictures")
        theirs = list(getattr(data, "classes", None) or names)
        if names != theirs:
            raise EyelineError(_difference(owner, names, f"{split} data", theirs))
        _check_records(getattr(getattr(data, "annotations", None), "records", ()), len(names))


def _difference(a: str, ours: list[str], b: str, theirs: list[str]) -> str:
    """In words, how two lists of classes differ."""
    unseen = [name for name in theirs if name not in ours]
    if len(ours) != len(theirs):
        what = f"the {a} has {len(ours)} classes and the {b} {len(theirs)}"
    elif unseen:
        what = f"the {b} has the class {unseen[0]!r}, which the {a} does not know"
    else:
        what = f"the {a} and the {b} have the same classes in another order"
    known = ", ".join(ours[:3]) + (" ..." if len(ours) > 3 else "")
    return f"{what}; the {a}'s are: {known}; open all data, and create the model, with one classes="


def _check_records(records: Any, num_classes: int) -> None:
    for record in records:
        flat = ~(record.boxes[:, 2:] > record.boxes[:, :2]).all(1)  # NaN compares as False
        if flat.any():
            i = int(flat.argmax())
            box = record.boxes[i].tolist()
            raise EyelineError(f"{record.where[i]}: the box {box} has no area; mend or remove it")
        outside = (record.labels < 0) | (record.labels >= num_classes)
        if num_classes and outside.any():
            i = int(outside.argmax())
            raise EyelineError(
                f"{record.where[i]}: label {record.labels[i]} is not in 0 .. {num_classes - 1}"
            )


def check_overflow(
    model: nn.Module, losses: dict[str, float], skipped_running: int, where: str
) -> None:
    """After a step of fp16 that was skipped: raise where a smaller loss scale cannot help."""
    advice = "lower optimizer.lr, or take precision=bf16 or float32"
    if skipped_running >= SKIPS:
        raise EyelineError(
            f"{where}: gradients are not finite for {SKIPS} steps in a row, whatever the loss "
            f"scale; {advice}"
        )
    if all(map(math.isfinite, losses.values())):
        return
    for name, buffer in model.named_buffers():
        if buffer.is_floating_point() and not buffer.isfinite().all():
            raise EyelineError(
                f"{where}: the forward pass overflowed half precision and {name} with it, which "
                f"cannot be undone; {advice}"
            )


def targets_of(batch: Any) -> list[Any]:
    """Of each picture in a batch of the loader."""
    return list(batch.targets or [] if isinstance(batch, Batch) else batch[1])


def check_finite(values: dict[str, float], group: list[Any], where: str) -> None:
    """Raise NotFinite where one of the values is, naming it and the pictures it came from."""
    for name, value in values.items():
        if math.isfinite(value):
            continue
        ids = []
        for batch in group:
            targets = targets_of(batch)
            ids += [str(int(target["image_id"])) for target in targets if "image_id" in target]
        pictures = f" on pictures {', '.join(ids)}" if ids else ""
        raise NotFinite(f"{name} is {value}", where, group, pictures)
