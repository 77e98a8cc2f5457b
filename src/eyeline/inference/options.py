"""What can be changed about a trained detector without training it again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from eyeline.errors import EyelineError
from eyeline.nn.detector import check_values

# The fields of a detector's Config that only its last step reads.
SUPPRESSION = (
    "nms", "nms_iou", "nms_sigma", "nms_floor", "class_agnostic_nms", "vote_iou", "max_detections",
)  # fmt: skip


def set_suppression(model: Any, options: Mapping[str, Any]) -> None:
    """Change how a detector thins out its boxes, in place; what is None stays as it is.

    Args:
        model: a detector with a `config` dataclass.
        options: of `SUPPRESSION`: `nms` ("hard", "soft_linear", "soft_gaussian"), `nms_iou`,
            `nms_sigma`, `nms_floor`, `class_agnostic_nms`, `vote_iou`, `max_detections`; see
            `eyeline.ops.suppression.Suppression`.

    Raises:
        EyelineError: an unknown option, a value that it cannot have, or a model without it.
    """
    options = {key: value for key, value in options.items() if value is not None}
    config: Any = getattr(model, "config", None)
    has = {field.name for field in dataclasses.fields(config)} if options and config else set()
    for key in options:
        if key not in SUPPRESSION:
            raise EyelineError(f"unknown option {key!r}; there are: {', '.join(SUPPRESSION)}")
        if key not in has:
            raise EyelineError(f"{type(model).__name__} has no option {key!r}")
    if options:
        check_values(type(config), options)
        model.config = dataclasses.replace(config, **options)
