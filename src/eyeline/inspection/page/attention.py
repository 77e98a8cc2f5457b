"""What the page shows of class activation maps: of the best detections, and of their classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eyeline.inspection.cam import METHODS, activations, class_activation, class_score
from eyeline.inspection.page.packing import packed
from eyeline.inspection.page.seen import level_names
from eyeline.inspection.xray import XRay

OF_BOXES = "hires-cam"  # is shown first: it tells one box from another
OF_CLASSES = "grad-cam"  # which speaks of all places that look like the class
LAYERS = 2  # the last stages of the backbone


class Attention(NamedTuple):
    """Which cells a score hangs on."""

    title: str  # of the detection or class
    method: str  # "grad-cam" ...
    layer: str  # whose maps were weighed
    map: Tensor  # (h, w) uint8, 255: most; over the picture as the network sees it
    detection: int | None = None


def attention(x: XRay, names: Sequence[str], count: int) -> list[Attention]:
    """Maps of the best `count` detections, by every method, and of their classes.

    One forward and one backward pass a class, and one backward pass a detection.
    """
    methods = sorted(METHODS, key=lambda method: method != OF_BOXES)
    name, stages = next(iter(x.maps.items()))
    layers = level_names(name, len(stages))[-LAYERS:][::-1]
    labels, scores = x.prediction["labels"][:count].tolist(), x.prediction["scores"]
    found = [
        Attention(
            f"#{one.detection} {names[labels[one.detection]]} {scores[one.detection]:.2f}",
            one.method, one.layer, one.map, one.detection,
        )
        for one in activations(x.model, x.batch, range(len(labels)), methods, layers)
    ]  # fmt: skip
    for label in dict.fromkeys(labels):
        cam = class_activation(x.model, x.batch, class_score(label), OF_CLASSES, layers[0])
        shown = (cam * 255).round().to(torch.uint8)
        found.append(Attention(f"all {names[label]}", OF_CLASSES, layers[0], shown))
    return found


def shown(maps: Sequence[Attention] | None) -> list[dict[str, Any]] | str:
    """The section's data, or why there is none; None: nobody asked for maps."""
    if maps is None:
        return "Left out: no map was asked for when this page was written."
    if not maps:
        return "Does not apply: nothing was found in this picture, so there is no score to explain."
    return [
        {
            "title": one.title, "method": one.method, "layer": one.layer,
            "height": one.map.shape[0], "width": one.map.shape[1],
            "values": packed(one.map, "uint8"), "detection": one.detection,
        }
        for one in maps
    ]  # fmt: skip
