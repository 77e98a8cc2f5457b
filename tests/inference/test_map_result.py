"""Maps of classes: counted, drawn, written and read back."""

from __future__ import annotations

import json
from importlib import import_module

import numpy as np
import pytest
import torch
from PIL import Image
from tests.inference.toy_segmenter import CLASSES, bands

from eyeline.errors import EyelineError
from eyeline.inference import SegmentationResult
from eyeline.inference.draw_map import (
    FADED,
    TINT,
    WRONG,
    class_colours,
    coloured,
    draw_errors,
    draw_map,
    indexed,
)
from eyeline.ops.labels import IGNORE
from eyeline.ops.segmentations import decode_masks


@pytest.fixture
def result():
    image, truth = bands()
    truth = truth.to(torch.uint8)
    truth[:2] = IGNORE
    return SegmentationResult(image, truth, CLASSES, "a.jpg")


def test_pixels_are_counted(result):
    assert result.counts() == {"red": 264, "green": 264, "blue": 264}
    assert result.rows()[1] == ("a.jpg", "green", 1, 264, round(264 / 864, 6))
    assert result.mask("green").sum() == 264 and torch.equal(result.mask(1), result.mask("green"))
    told = json.loads(json.dumps(result.to_json()))
    assert (told["width"], told["height"]) == (36, 24)
    assert told["classes"][2] == {"class": "blue", "label": 2, "pixels": 264, "share": 0.305556}
    with pytest.raises(EyelineError, match="no class 'grey'; there are: red, green, blue"):
        result.mask("grey")
    with pytest.raises(EyelineError, match="logits=True"):
        _ = result.probabilities


def test_an_indexed_picture_holds_the_classes(result, tmp_path):
    result.save_map(tmp_path / "map.png")
    with Image.open(tmp_path / "map.png") as read:
        assert read.mode == "P"
        assert np.array_equal(np.asarray(read), result.map.numpy())
        assert read.convert("RGB").tobytes() == coloured(result.map, CLASSES).tobytes()
    with pytest.raises(EyelineError, match="300"):
        indexed(torch.full((2, 2), 300), CLASSES)
    with pytest.raises(EyelineError, match="whole numbers"):
        indexed(torch.zeros(2, 2), CLASSES)


@pytest.mark.parametrize("form", ["rle", "polygons"])
def test_coco_has_a_record_for_each_class_of_the_picture(result, form):
    result.map[:, 24:] = 0  # nothing blue
    records = json.loads(json.dumps(result.to_coco(7, [10, 20, 30], form)))
    assert [(r["image_id"], r["category_id"], r["area"]) for r in records] == [
        (7, 10, 264 + 288), (7, 20, 264),
    ]  # fmt: skip
    assert records[1]["bbox"] == [12, 2, 12, 22] and records[0]["bbox"] == [0, 0, 36, 24]
    masks = decode_masks([r["segmentation"] for r in records], 24, 36)
    assert np.array_equal(masks, np.stack([result.map == 0, result.map == 1]))


def test_every_class_has_a_colour_of_its_own():
    names = [f"class {i}" for i in range(200)]
    colours = class_colours(names)
    assert len(np.unique(colours, axis=0)) == 200
    assert np.array_equal(class_colours(names[:20]), colours[:20])
    # What is customary, once; a background has none.
    road = class_colours(["background", "sky", "Sky", "tree"])
    assert road[0].tolist() == [0, 0, 0] and road[1].tolist() == [90, 209, 255]
    assert len(np.unique(road, axis=0)) == 4


def test_a_picture_is_tinted_where_classes_are():
    image, truth = bands(480, 480)
    truth[:100] = IGNORE
    drawn = np.asarray(draw_map(image, truth, ["sea", "background", "moss"], legend=False))
    assert drawn.shape == (480, 480, 3)
    given = image.permute(1, 2, 0).numpy()
    assert np.array_equal(drawn[:90], given[:90])  # ignored
    assert np.array_equal(drawn[200, 200:280], given[200, 200:280])  # background
    sea = np.array([45, 107, 255])
    wanted = (given[200, 50] + TINT * (sea - given[200, 50])).round()
    assert np.array_equal(drawn[200, 50], wanted)
    assert np.array_equal(drawn[200, 159], sea)  # the border is outlined


def test_strips_make_no_seam(monkeypatch):
    image, truth = bands(500, 480)
    truth[200:] = truth[200:].flip(1)
    truth[400:] = -1  # nothing
    names = ["sea", "moss", "roof"]
    whole = np.asarray(draw_map(image, truth, names))
    monkeypatch.setattr(import_module("eyeline.inference.draw_map"), "STRIP", 7)
    assert np.array_equal(np.asarray(draw_map(image, truth, names)), whole)
    assert np.array_equal(whole[410:500], image.permute(1, 2, 0).numpy()[410:])


def test_errors_are_red_and_what_is_ignored_is_white():
    grey = Image.new("RGB", (4, 2), (100, 100, 100))
    wrong, ignored = np.zeros((2, 4), bool), np.zeros((2, 4), bool)
    wrong[0, 1] = ignored[1, 2] = True
    drawn = np.asarray(draw_errors(grey, wrong, ignored))
    assert drawn[0, 1].tolist() == list(WRONG) and drawn[1, 2].tolist() == [255] * 3
    assert drawn[0, 0].tolist() == [round(255 - FADED * 155)] * 3
    assert np.array_equal(drawn[0, 2:], np.asarray(draw_errors(grey, wrong))[1, 2:])


def test_a_plot_has_one_size_for_all_maps_of_a_video(result):
    size = result.plot().size
    assert size[0] == 36 * 14 and size[1] > 24 * 14
    result.map[:] = 1
    assert result.plot().size == size
    assert result.plot(legend=False).size == (36 * 14, 24 * 14)
    many = [f"a class with a long name {i}" for i in range(60)]
    result.classes = many
    assert result.plot().width == 36 * 14
    with pytest.raises(EyelineError, match="the map is 3 x 3, the picture 24 x 36"):
        draw_map(result.image, torch.zeros(3, 3, dtype=torch.uint8), CLASSES)
