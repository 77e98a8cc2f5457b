"""Pure tensor functions: boxes, overlaps, anchors, matching, suppression, regions.

`eyeline.ops.nms` stays the module, for its function of the same name:
`from eyeline.ops.nms import nms`.
"""

from eyeline.ops.anchors import anchor_grid, cell_anchors
from eyeline.ops.boxes import area, check_boxes, clip, convert
from eyeline.ops.deltas import decode, encode
from eyeline.ops.iou import (
    box_ciou,
    box_diou,
    box_giou,
    box_ioa,
    box_iou,
    elementwise_ciou,
    elementwise_diou,
    elementwise_giou,
    elementwise_iou,
)
from eyeline.ops.matching import BACKGROUND, IGNORED, ignored_by, match
from eyeline.ops.nms import nms_padded
from eyeline.ops.resize import fitted_size, resize
from eyeline.ops.roi_align import assign_levels, roi_align, roi_pool
from eyeline.ops.sampling import balanced_sample

__all__ = [
    "BACKGROUND",
    "IGNORED",
    "anchor_grid",
    "area",
    "assign_levels",
    "balanced_sample",
    "box_ciou",
    "box_diou",
    "box_giou",
    "box_ioa",
    "box_iou",
    "cell_anchors",
    "check_boxes",
    "clip",
    "convert",
    "decode",
    "elementwise_ciou",
    "elementwise_diou",
    "elementwise_giou",
    "elementwise_iou",
    "encode",
    "fitted_size",
    "ignored_by",
    "match",
    "nms_padded",
    "resize",
    "roi_align",
    "roi_pool",
]
