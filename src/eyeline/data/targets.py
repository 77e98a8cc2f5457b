"""What segmenters learn from: a class for every pixel."""

from __future__ import annotations

import numpy as np

from eyeline.data.faults import Fault
from eyeline.data.formats import Record
from eyeline.data.formats.raster import painted
from eyeline.ops.labels import IGNORE
from eyeline.ops.segmentations import decode_masks


def semantic_target(
    record: Record, outside: int = IGNORE, smaller_on_top: bool = False
) -> np.ndarray:
    """(H, W) int64: the label of the object that each pixel belongs to, 255 where it is ignored.

    Of objects that overlap the later one has the pixels, or with `smaller_on_top` the one of fewer
    pixels. Those with `iscrowd`, which no class is learnt from, lie below all others.

    Args:
        outside: the label of pixels where no object is: 255, or that of a class for it.

    Raises:
        EyelineError: an object has no segmentation, so that nobody knows which pixels are its own.
    """
    segmentations = record.segmentations or [[] for _ in record.labels]
    for where, segmentation in zip(record.where, segmentations, strict=True):
        if not segmentation:
            what = "the object has no mask, so its pixels have no class; annotate it"
            raise Fault("field", where, what)
    try:
        masks = decode_masks(segmentations, record.height, record.width)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise Fault("field", record.path, f"cannot decode its masks: {reason}") from None
    labels = np.where(record.iscrowd, IGNORE, record.labels)
    return np.array([*labels, outside])[painted(masks, record.iscrowd, smaller_on_top)]
