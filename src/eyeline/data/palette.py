"""The colours of classes in an indexed picture."""

from __future__ import annotations

import numpy as np

from eyeline.ops.labels import IGNORE


def class_palette(num_classes: int = IGNORE) -> np.ndarray:
    """(256, 3) uint8 by value: colours far from each other for the classes, a pale one for those to
    be ignored, black for all others. They are Pascal VOC's, from its second on."""
    colours = np.zeros((256, 3), np.uint8)
    number = np.arange(1, num_classes + 1)
    for bit in range(8):  # each three bits of the number become one of red, green and blue
        for channel in range(3):
            colours[:num_classes, channel] |= (
                (number >> (3 * bit + channel) & 1) << (7 - bit)
            ).astype(np.uint8)
    colours[IGNORE] = (224, 224, 192)
    return colours
