"""Boxes on pictures: colours, sizes, and tags that stay inside and do not hide each other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageColor

from eyeline.errors import EyelineError
from eyeline.inference import draw
from eyeline.inference.draw import PALETTE, draw_boxes, to_pil


def grey(width: int = 640, height: int = 480) -> Image.Image:
    return Image.new("RGB", (width, height), (128, 128, 128))


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0)


def test_every_kind_of_picture_gives_the_same_drawing() -> None:
    array = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    box = [[100, 100, 300, 200]]
    kinds = [array, tensor, tensor.float() / 255, array.astype(np.float64) / 255]
    wanted = np.asarray(draw_boxes(Image.fromarray(array), box, [0], [0.5], ["cat"]))
    assert not np.array_equal(wanted, array)
    for kind in kinds:
        assert np.array_equal(np.asarray(draw_boxes(kind, box, [0], [0.5], ["cat"])), wanted)


def test_the_given_picture_is_not_drawn_on() -> None:
    picture = grey()
    draw_boxes(picture, [[10, 10, 50, 50]], [0])
    assert np.all(np.asarray(picture) == 128)


def test_no_boxes_no_change() -> None:
    assert np.all(np.asarray(draw_boxes(grey(), torch.zeros(0, 4))) == 128)


def test_edges_have_the_colour_of_the_class() -> None:
    drawn = draw_boxes(grey(), [[100, 200, 300, 400], [400, 200, 600, 400]], [0, 17])
    assert drawn.getpixel((100, 300)) == ImageColor.getrgb(PALETTE[0])
    assert drawn.getpixel((600, 300)) == ImageColor.getrgb(PALETTE[17 % len(PALETTE)])
    assert drawn.getpixel((200, 300)) == (128, 128, 128)


@pytest.mark.parametrize(("width", "factor"), [(100, 5), (160, 3), (320, 2), (480, 1), (2000, 1)])
def test_small_pictures_are_enlarged(width: int, factor: int) -> None:
    drawn = draw_boxes(grey(width, width // 2), [[10, 20, 30, 40]])
    assert drawn.size == (width * factor, width // 2 * factor)
    assert drawn.getpixel((10 * factor, 30 * factor)) == ImageColor.getrgb(PALETTE[0])


def test_lines_and_letters_grow_with_the_picture() -> None:
    def painted(size: int) -> float:
        box = [[size * 0.2, size * 0.2, size * 0.8, size * 0.8]]
        drawn = np.asarray(draw_boxes(grey(size, size), box, [0], [0.5], ["cat"]))
        return float((drawn != 128).any(-1).mean())

    assert painted(4000) == pytest.approx(painted(1000), rel=0.2)


def test_palette_is_well_separated() -> None:
    colours = np.array([ImageColor.getrgb(c) for c in PALETTE])
    for a, b in combinations(colours, 2):
        assert np.linalg.norm(a - b) > 60


def test_text_has_wcag_contrast() -> None:
    def luminance(colour: str) -> float:
        c = np.array(ImageColor.getrgb(colour)) / 255
        linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    for colour in PALETTE:
        low, high = sorted([luminance(colour), luminance(draw.contrasting(colour))])
        assert (high + 0.05) / (low + 0.05) >= 4.5


coordinate = st.floats(-50, 700)


@settings(deadline=None)  # a busy machine is no failure
@given(st.tuples(coordinate, coordinate, coordinate, coordinate))
def test_tags_stay_inside_the_picture(box: tuple[float, float, float, float]) -> None:
    tag = draw._place(box, (80, 20), (640, 480), [], [box], 2)
    assert min(tag) >= 0 and tag[2] < 640 and tag[3] < 480
    assert (tag[2] - tag[0], tag[3] - tag[1]) == pytest.approx((80, 20))


def test_tags_of_nested_boxes_do_not_hide_each_other() -> None:
    boxes = [[100, 100, 300, 300], [102, 101, 290, 280], [101, 102, 280, 290], [99, 99, 310, 310]]
    placed: list[tuple[float, float, float, float]] = []
    for box in boxes:
        placed.append(draw._place(box, (80, 20), (640, 480), placed, boxes, 2))
    for a, b in combinations(placed, 2):
        assert overlap(a, b) <= 80 * 4  # lines may touch


def test_a_tag_does_not_hide_a_small_box_beside_its_own() -> None:
    small = [100.0, 182.0, 130.0, 198.0]
    own = [100.0, 200.0, 300.0, 400.0]
    assert overlap(draw._place(own, (80, 20), (640, 480), [], [own], 2), small) > 0
    assert overlap(draw._place(own, (80, 20), (640, 480), [], [own, small], 2), small) == 0


def test_where_tags_must_overlap_the_best_is_on_top() -> None:
    boxes = [[0, 0, 479, 13]] * 9  # room for a few tags only
    best = np.asarray(draw_boxes(grey(480, 14), boxes[:1], [0], [0.9], ["a" * 20]))
    all_nine = np.asarray(
        draw_boxes(grey(480, 14), boxes, [0, *range(1, 9)], [0.9] * 9, ["a" * 20])
    )
    assert np.array_equal(best[:, :100], all_nine[:, :100])


@pytest.mark.parametrize(
    ("labels", "scores", "classes", "text"),
    [
        ([1], [0.5], ["cat", "dog"], "dog 0.50"),
        ([1], None, ["cat", "dog"], "dog"),
        ([7], torch.tensor([0.999]), ["cat"], "7 1.00"),
        (torch.tensor([7]), None, None, "7"),
        (None, np.array([0.25]), None, "0.25"),
    ],
)
def test_text(
    labels: Any, scores: Any, classes: Any, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    monkeypatch.setattr(
        draw.ImageDraw.ImageDraw, "text", lambda self, at, text, **how: written.append(text)
    )
    draw_boxes(grey(), [[10, 20, 300, 400]], labels, scores, classes)
    assert written == [text]


def test_nothing_known_no_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(draw.ImageDraw.ImageDraw, "text")
    draw_boxes(grey(), [[10, 20, 300, 400]])  # would raise


@pytest.mark.parametrize("bad", [torch.zeros(3, 0, 5), torch.zeros(5, 5), np.zeros((5, 5))])
def test_other_shapes_are_named(bad: torch.Tensor | np.ndarray) -> None:
    with pytest.raises(EyelineError, match=r"picture (tensor|array) is .*3"):
        to_pil(bad)


def test_other_pixels_are_named() -> None:
    """Drawn as they are they would be dark or white, and nobody would know why."""
    with pytest.raises(EyelineError, match=r"values of torch\.uint16; give uint8, or float from 0"):
        to_pil(np.full((5, 5, 3), 300, np.uint16))
    with pytest.raises(EyelineError, match="values from 200 to 200, not 0 to 1"):
        to_pil(torch.full((3, 5, 5), 200.0))
    wide = Image.fromarray(np.full((5, 5), 30_000, np.uint16))
    assert to_pil(wide).getpixel((2, 2)) == (117, 117, 117)
