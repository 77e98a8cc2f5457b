"""What the page shows of class activation maps: of the best detections, a cell of each one's mask,
and of all classes that were detected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from eyeline.errors import EyelineError
from eyeline.inspection.cam import (
    METHODS,
    Activation,
    Score,
    box_score,
    class_score,
    mask_score,
    score_activations,
)
from eyeline.inspection.page.packing import packed
from eyeline.inspection.page.seen import level_names
from eyeline.inspection.xray import XRay

FIRST = "hires-cam"  # it tells one box from another
LAYERS = 2  # the last stages of the backbone


class Attention(NamedTuple):
    """Which cells a score hangs on."""

    title: str  # of the detection, its mask or a class
    method: str  # "grad-cam" ...
    layer: str  # whose maps were weighed
    map: Tensor  # (h, w) uint8, 255: most; over the picture as the network sees it
    detection: int | None = None
    note: str = ""  # why it is black


def attention(x: XRay, names: Sequence[str], count: int) -> list[Attention] | str:
    """Maps of the best `count` detections, of each one's mask at its most certain cell, and of all
    classes that were detected, by every method at the last stages; or why there can be none.

    One forward pass, and a backward pass each.
    """
    notes = next(iter(x.maps.items()), None)
    if notes is None:
        return "This model's file notes no feature maps, on which a score could hang."
    layers = level_names(notes[0], len(notes[1]))[-LAYERS:][::-1]
    labels, scores = x.prediction["labels"].tolist(), x.prediction["scores"].tolist()
    wanted: list[tuple[str, int | None, Score]] = []
    for d, (label, score) in enumerate(zip(labels[:count], scores[:count], strict=True)):
        wanted.append((f"#{d} {names[label]} {score:.2f}", d, box_score(d)))
        if x.padded.masks is not None:
            mask = x.padded.masks[0][x.padded.valid[0]][d]
            row, column = divmod(int(mask.argmax()), mask.shape[1])
            title = f"#{d} {names[label]}, its mask at row {row}, column {column}"
            wanted.append((title, d, mask_score(d, row, column)))
    for label in dict.fromkeys(labels):
        wanted.append((f"all {names[label]}", None, class_score(label)))
    methods = sorted(METHODS, key=lambda method: method != FIRST)
    try:
        found = score_activations(
            x.model, x.batch, [score for *_, score in wanted], methods, layers
        )
    except EyelineError as error:
        return f"There are no maps for this model: {error}."
    return [
        Attention(wanted[one.detection][0], one.method, one.layer, one.map,
                  wanted[one.detection][1], _why_black(one))
        for one in found
    ]  # fmt: skip


def _why_black(one: Activation) -> str:
    if one.flat:
        return (
            "It is black because the score's gradient is 0: a probability that is 1 to the last "
            "digit is saturated, and no cell moves it."
        )
    return "" if one.map.any() else "It is black because no cell speaks for the score."


def shown(maps: Sequence[Attention] | str | None) -> list[dict[str, Any]] | str:
    """The section's data, or why there is none; None: nobody asked for maps."""
    if isinstance(maps, str):
        return maps
    if maps is None:
        return "Left out: no map was asked for when this page was written."
    if not maps:
        return "Does not apply: nothing was found in this picture, so there is no score to explain."
    return [
        {
            "title": one.title, "method": one.method, "layer": one.layer,
            "height": one.map.shape[0], "width": one.map.shape[1],
            "values": packed(one.map, "uint8"), "detection": one.detection, "note": one.note,
        }
        for one in maps
    ]  # fmt: skip
