"""Maps of classes: 0 .. K-1, and a number that means "ignore"."""

from __future__ import annotations

from torch import Tensor

from eyeline.errors import EyelineError

IGNORE = 255  # of a map: counts nowhere


def check_labels(labels: Tensor, num_classes: int, where: str, ignore: int = IGNORE) -> None:
    """Raises EyelineError, which names the value, where one is neither a class nor `ignore`.

    labels  of any shape, integers
    where   begins the message: "target 3"
    """
    labels = labels.long()  # before it is compared: of bytes, -7 would be 249
    known = labels.where(labels != ignore, 0)
    if not known.numel():
        return
    low, high = (int(value) for value in known.aminmax())
    if low < 0 or high >= num_classes:
        wrong = known[(known < 0) | (known >= num_classes)]
        raise EyelineError(
            f"{where}: class {int(wrong[0])} ({len(wrong)} pixels) is not in 0 .. "
            f"{num_classes - 1}, nor {ignore}, which is ignored"
        )
