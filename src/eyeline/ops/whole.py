"""Operators that an exported graph keeps whole, because the runtime it is for has its own.

Within `keep_whole()`, `nms_padded` and `roi_align` do not spell out their tensor code but leave one
of the operators below in the graph. These have shapes alone; what becomes of them is said where
the graph is written, in `eyeline.export.onnx`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

_whole = False


def kept_whole() -> bool:
    return _whole


@contextmanager
def keep_whole() -> Iterator[None]:
    """Within the context, graphs that are captured hold the operators below."""
    global _whole
    before, _whole = _whole, True
    try:
        yield
    finally:
        _whole = before


_library = torch.library.Library("eyeline", "DEF")
_library.define(
    "nms_kept(Tensor boxes, Tensor scores, Tensor valid, Tensor? groups, float iou_threshold, "
    "int max_detections) -> Tensor"
)
_library.define(
    "roi_align(Tensor[] levels, Tensor boxes, Tensor image_index, Tensor level_index, "
    "int height, int width, float[] scales, int sampling_ratio, bool aligned) -> Tensor"
)


def _nms_kept(
    boxes: Tensor,
    scores: Tensor,
    valid: Tensor,
    groups: Tensor | None,
    iou_threshold: float,
    max_detections: int,
) -> Tensor:
    """Which boxes survive in each row, (rows, N) bool: at least the best `max_detections` of them;
    boxes (rows, N, 4), scores, valid and groups (rows, N)."""
    return torch.empty_like(valid)


def _roi_align(
    levels: Sequence[Tensor],
    boxes: Tensor,
    image_index: Tensor,
    level_index: Tensor,
    height: int,
    width: int,
    scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """(R, C, height, width), as `eyeline.ops.roi_align.roi_align` gives it."""
    return levels[0].new_empty(boxes.shape[0], levels[0].shape[1], height, width)


torch.library.register_fake("eyeline::nms_kept", _nms_kept, lib=_library)
torch.library.register_fake("eyeline::roi_align", _roi_align, lib=_library)
