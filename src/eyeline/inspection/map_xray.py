"""What a segmenter did with one picture: the probabilities of each pixel, how sure they are, and
the maps that its file names with `note`, or, where it names none, what its parts give.

Letters   K classes, C channels of a map, H and W of the picture, h and w of a map.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from eyeline.errors import EyelineError
from eyeline.evaluation.running import eval_mode
from eyeline.inspection.xray import Line, recording
from eyeline.nn.segmenter import Segmenter
from eyeline.ops.labels import IGNORE, check_labels
from eyeline.structures import Batch

LOGITS = "logits"  # the name by which `Segmenter` notes its result


@dataclass
class MapXRay:
    """What was seen."""

    model: nn.Module
    image: Tensor  # (C, H, W), as it was given
    batch: Batch
    logits: Tensor  # (K, H, W) float32, in the picture's size
    stages: list[tuple[str, Tensor]]  # (C, h, w) each, in the order in which they arose
    lines: dict[str, Line]  # where a stage was noted
    target: Tensor | None = None  # (H, W): classes, and 255
    losses: dict[str, float] | None = None  # of the target

    @property
    def probabilities(self) -> Tensor:
        """(K, H, W)."""
        return self.logits.softmax(0)

    @property
    def classes(self) -> Tensor:
        """(H, W): the most probable class of each pixel."""
        return self.logits.argmax(0)

    @property
    def entropy(self) -> Tensor:
        """(H, W) in 0 .. 1: how little is known of a pixel; 1 where all classes are as likely."""
        log = self.logits.double().log_softmax(0)
        whole = math.log(max(2, len(self.logits)))
        return (-(log.exp() * log).sum(0) / whole).clamp(0, 1).float()

    @property
    def wrong(self) -> Tensor | None:
        """(H, W) bool: pixels whose class is another than the target's; None without one."""
        if self.target is None:
            return None
        return (self.classes != self.target) & (self.target != IGNORE)


def xray_map(model: nn.Module, image: Tensor, target: Tensor | None = None) -> MapXRay:
    """Watch a segmenter at work on one picture; its weights, mode and outputs stay as they are.

    Args:
        image: (C, H, W), uint8 or float in [0, 1].
        target: (H, W): classes, and 255; with it the losses are told too.

    Raises EyelineError where the model is no segmenter of eyeline's, the target is not of the
    picture's size or has other classes, or what the model says are not numbers.
    """
    if not isinstance(model, Segmenter):
        raise EyelineError(f"{type(model).__name__} is no segmenter of eyeline's")
    if target is not None:
        if target.shape != image.shape[1:]:
            raise EyelineError(
                f"the map is {tuple(target.shape)}, the picture {tuple(image.shape[1:])}"
            )
        check_labels(target, model.config.num_classes, "the map")
    parts: list[tuple[str, Tensor]] = []
    hooks = [
        module.register_forward_hook(lambda _, given, made, name=name: keep(parts, name, made))
        for name, module in model.named_children()
    ]
    losses = None
    try:
        with eval_mode(model), torch.no_grad():
            batch = model.prepare([image]).to(model.device)
            with recording() as seen:
                logits = model.finish(model.compute(batch), batch)[0].float().cpu()
            if target is not None:
                learned = model([image], [target])
                losses = {name: float(value) for name, value in learned.items()}
    finally:
        for hook in hooks:
            hook.remove()
    if not logits.isfinite().all():
        raise EyelineError(
            f"{type(model).__name__}: the logits are not finite numbers; are the weights?"
        )
    noted: list[tuple[str, Tensor]] = []
    for name, value in seen.shown:
        if not name.startswith(LOGITS):
            keep(noted, name, value)
    return MapXRay(
        model, image, batch.to("cpu"), logits, noted or parts, seen.lines, target, losses
    )


def keep(found: list[tuple[str, Tensor]], name: str, value: Any) -> None:
    """Add the maps (C, h, w) of the first picture that are in a value; of several, each."""
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    maps = [v for v in values if isinstance(v, Tensor) and v.ndim == 4 and len(v)]
    for i, each in enumerate(maps):
        unique = name if len(maps) == 1 else f"{name} ({i + 1})"
        found.append((unique, each[0].detach().float().cpu()))
