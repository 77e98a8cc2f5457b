"""What readers share: keys under our names, by a table of patterns; the class layers of SSD.

Letters   S slots of the file's class layers (its background is slot 0), A default boxes of a cell.
"""

from __future__ import annotations

import re
from itertools import count as integers

from eyeline.checkpoints.source import COUNTER, State, begins, some
from eyeline.errors import EyelineError


def rename(
    state: State,
    table: list[tuple[str, str]],
    layers: tuple[str, ...],
    where: str,
    skip: tuple[str, ...],
) -> tuple[State, dict[str, str], list[str]]:
    """Each key under our name; an error names those that no line of the table takes.

    `layers` of ours must be there, weight and bias, since the readers look into them; a layer with
    a norm behind it has no bias.
    """
    ours: State = {}
    renamed: dict[str, str] = {}
    dropped: list[str] = []
    over: list[str] = []
    for key, value in state.items():
        if key.endswith(COUNTER):
            dropped.append(key)
            continue
        for pattern, name in table:
            if match := re.fullmatch(pattern, key):
                new = match.expand(name)
                ours[new] = value
                if new != key:
                    renamed[new] = key
                break
        else:
            (dropped if begins(key, skip) else over).append(key)
    if over:
        raise EyelineError(
            f"{where}: no place for {some(over)}; name what to leave out with skip=[...]"
        )
    lacking = {f"{layer}.weight" for layer in layers} - ours.keys()
    biased = (layer for layer in layers if f"{layer}.norm.weight" not in ours)
    lacking |= {f"{layer}.bias" for layer in biased} - ours.keys()
    if lacking:
        raise EyelineError(f"{where} lacks our {some(lacking)}")
    return ours, renamed, dropped


def count(state: State, prefix: str, end: str = ".weight") -> int:
    """How many of "prefix.0.weight", "prefix.1.weight", ... there are."""
    return next(i for i in integers() if f"{prefix}.{i}{end}" not in state)


def ssd_slots(ours: State, where: str) -> int:
    """How many classes, with background, the layers `class_heads` of a state's maps score."""
    found = set()
    for i in range(count(ours, "class_heads")):
        boxes, scores = (len(ours.get(f"{kind}_heads.{i}.bias", ())) for kind in ("box", "class"))
        slots, over = divmod(scores, max(1, boxes // 4))
        if over or not slots or not boxes or boxes % 4:
            raise EyelineError(f"{where}: map {i} has class and box outputs that do not fit")
        found.add(slots)
    if len(found) != 1:
        raise EyelineError(f"{where}: its maps score different numbers of classes: {found}")
    return found.pop()


def take_slots(ours: State, slots: list[int]) -> None:
    """Of each default box's scores in `class_heads` the given slots, in that order."""
    for i in range(count(ours, "class_heads")):
        boxes = len(ours[f"box_heads.{i}.bias"]) // 4
        for key in (f"class_heads.{i}.weight", f"class_heads.{i}.bias"):
            ours[key] = ours[key].unflatten(0, (boxes, -1))[:, slots].flatten(0, 1)  # (A S, ...)
