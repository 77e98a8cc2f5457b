"""Annotated maps on their pictures."""

from __future__ import annotations

import numpy as np
from PIL import Image

from eyeline.inference.draw_map import class_colours, hex_colours
from eyeline.inference.overlay import GREY, TINT, paint_map

NAMES = ["road", "sky", "background"]


def test_every_pixel_is_painted_as_its_class_says() -> None:
    classes = np.full((8, 10), -1)
    classes[:, 5:] = 0
    classes[4:, 5:] = 1
    classes[6:, :4] = 2
    picture = Image.new("RGB", (10, 8), (100, 100, 100))
    drawn = np.asarray(paint_map(picture, classes, NAMES)).astype(int)
    road, sky = class_colours(NAMES)[:2].astype(int)
    assert (drawn[:4, :4] == 100).all()  # nothing
    assert (drawn[7, :3] == 100).all()  # nor is a background painted
    inside = np.round(100 + TINT * (road - 100))
    assert np.abs(drawn[1, 7] - inside).max() <= 1
    assert (drawn[3, 7] == road).all()  # where it meets the sky
    assert np.abs(drawn[6, 8] - np.round(100 + TINT * (sky - 100))).max() <= 1
    assert hex_colours(NAMES)[1] == "#{:02x}{:02x}{:02x}".format(*sky)


def test_ignored_pixels_are_grey_stripes_and_maps_of_another_size_fit() -> None:
    picture = Image.new("RGB", (60, 40), (100, 100, 100))
    classes = np.full((20, 30), 255, np.uint8)
    classes[:, 15:] = 1
    drawn = np.asarray(paint_map(picture, classes, NAMES)).astype(int)
    left = drawn[:, :29].reshape(-1, 3)
    assert len(np.unique(left, axis=0)) == 2  # the stripes and what lies between
    assert np.abs(left - np.round(100 + TINT * (GREY - 100))).min() <= 1
    assert (drawn[:, 31:] != 100).any(2).all() and not (drawn[:, 31:] == left[0]).all(2).any()
