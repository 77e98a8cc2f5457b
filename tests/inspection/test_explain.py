"""The page of an x-ray: whole for every detector, without a script error, and true."""

from __future__ import annotations

import html
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from page_walk import array, data_of, known, walked

import eyeline
from eyeline.data.lookup import annotated_picture
from eyeline.inspection.cam import METHODS, activations
from eyeline.inspection.explain import class_names, explain
from eyeline.inspection.page import found, pictures, seen, source
from eyeline.inspection.page.attention import attention
from eyeline.inspection.xray import BoxStage, Line, XRay, xray
from eyeline.ops.roi_align import pool_edges, roi_align, roi_pool, sample_positions
from eyeline.registry import list_models

SECTIONS = (
    "picture", "features", "anchors", "mining", "steps", "proposals", "regions", "masks", "boxes",
    "attention",
)  # fmt: skip
DETECTORS = list_models("detection")
MASKED = ("mask_rcnn", "cascade_mask_rcnn")
PICTURE = "000000087038.jpg"  # has a crowd


@pytest.fixture(scope="module")
def xrays(shared_data: Path) -> dict[str, XRay]:
    """Of each detector, untrained, on one photograph."""
    torch.manual_seed(0)
    coco = shared_data / "tiny_coco"
    content = json.loads((coco / "annotations" / "instances_val2017.json").read_text())
    (photograph,) = (image for image in content["images"] if image["file_name"] == PICTURE)
    there = {a["category_id"] for a in content["annotations"] if a["image_id"] == photograph["id"]}
    classes = ["none of these", *(c["name"] for c in content["categories"] if c["id"] in there)]
    image, target, _ = annotated_picture(coco, coco / "val2017" / PICTURE, classes, masks=True)
    assert len(target["boxes"]) and target["labels"].min() > 0
    return {
        name: xray(eyeline.create_model(name, classes=classes, **known(name)), image, target)
        for name in DETECTORS
    }


@pytest.fixture(scope="module")
def pages(xrays: dict[str, XRay]) -> dict[str, str]:
    return {
        name: explain(x, name, PICTURE, attention(x, class_names(x), 2))
        for name, x in xrays.items()
    }


@pytest.mark.parametrize("name", DETECTORS)
def test_every_section_is_there_or_says_why_not(pages: dict[str, str], name: str) -> None:
    page = pages[name]
    data = data_of(page)
    assert len(page) < 4_000_000
    reasons = {}
    for section in SECTIONS:
        part = re.search(rf'<section id="{section}">.*?</section>', page, re.DOTALL)
        assert part is not None, section
        if data[section] is None:
            reason = re.search(r'<p class="reason">(.+?)</p>', part[0])
            assert reason is not None, section
            reasons[section] = reason[1]
        else:
            assert '<div class="view"></div>' in part[0], section
    one_stage = name.startswith(("refinedet", "retinanet", "ssd", "yolo"))
    assert ("regions" in reasons) == one_stage
    assert ("steps" in reasons) == (not name.startswith(("cascade", "refinedet")))
    assert ("masks" in reasons) == (name not in MASKED)
    assert ("mining" in reasons) == (not name.startswith(("refinedet", "ssd")))
    assert all(len(reason.split()) > 5 for reason in reasons.values())


@pytest.mark.parametrize("name", DETECTORS)
def test_nothing_is_loaded(pages: dict[str, str], name: str) -> None:
    without_data = re.sub(r"data:image/[a-z]+;base64,[\w+/=]+", "", pages[name])
    assert "data:image" not in without_data
    urls = set(re.findall(r"https?://[^\"'\s<)]+", without_data))
    assert urls <= {"http://www.w3.org/2000/svg"}  # a name, which nobody loads
    assert not re.findall(r'(?:src|href)="(?!#)', without_data)
    assert "@import" not in without_data and "fetch(" not in without_data


@pytest.mark.parametrize("name", DETECTORS)
def test_the_page_has_the_x_ray_s_numbers(
    xrays: dict[str, XRay], pages: dict[str, str], name: str
) -> None:
    x, data = xrays[name], data_of(pages[name])
    anchors = data["anchors"]
    scores = array(anchors["scores"])
    assert np.abs(scores - x.stages[0].scores.numpy()).max() < 1e-5
    for level, boxes in zip(anchors["levels"], x.anchors, strict=True):
        (high, wide), shapes = level["step"], np.array(level["shapes"])
        y, x_ = np.mgrid[: level["height"], : level["width"]]
        corner = np.stack([x_ * wide, y * high] * 2, -1)[:, :, None]
        assert np.abs((corner + shapes).reshape(-1, 4) - boxes.numpy()).max() < 1e-2
    assert x.learning is not None
    kinds = np.array(anchors["kinds"])[array(anchors["kind"])]
    matches = x.learning.assignment.matches.numpy()
    assert set(kinds[matches >= 0]) <= {"positive", "forced"} and (matches >= 0).any()
    assert (kinds[matches == -2] == "ignored").all() and (
        kinds[matches == -1] == "background"
    ).all()
    assert (array(anchors["iou"])[kinds == "positive"] >= anchors["foreground"] - 1e-4).all()
    assert (array(anchors["iou"])[kinds == "forced"] < anchors["foreground"] + 1e-4).all()
    assert sum(row["anchors"] for row in anchors["counts"]) == len(matches)
    assert sum(row["ignored"] for row in anchors["counts"]) == (matches == -2).sum()
    if anchors["sampler"]:
        assert x.learning.sample is not None
        assert array(anchors["sampled"]).sum() == sum(map(len, x.learning.sample))
    boxes = data["boxes"]
    assert len(boxes["detections"]) == len(x.prediction["boxes"]) > 0
    for d, one in enumerate(boxes["detections"]):
        assert [step["row"] for step in one["steps"]] == x.rows(d)
        assert one["score"] == pytest.approx(float(x.prediction["scores"][d]), abs=1e-4)
        assert [other["iou"] for other in one["suppressed"]] == pytest.approx(
            [iou for _, iou in x.suppressed_by(d)], abs=1e-3
        )
    assert len(boxes["fates"]) == int((~x.target["iscrowd"].bool()).sum())  # type: ignore[index]
    assert all(fate["story"] for fate in boxes["fates"])


@pytest.mark.parametrize(
    "name", [name for name in DETECTORS if name.startswith(("refinedet", "ssd"))]
)
def test_mined_negatives_are_those_of_the_loss(
    xrays: dict[str, XRay], pages: dict[str, str], name: str
) -> None:
    x, data = xrays[name], data_of(pages[name])["mining"]
    learning = x.learning
    assert learning is not None and learning.sample is not None and learning.hardness is not None
    positive, negative = learning.sample.positive, learning.sample.negative
    assert data["count"] == len(negative) == 3 * len(positive) > 0
    losses = array(data["losses"])
    assert (np.diff(losses) <= 0).all() and data["easiest"] == losses[-1]
    assert sorted(losses) == sorted(learning.hardness[negative].numpy())
    assert data["hardest_left"] <= losses[-1]
    anchors = {tuple(box) for box in torch.cat(x.anchors)[negative].tolist()}
    assert {tuple(box) for box in array(data["boxes"]).reshape(-1, 4).tolist()} == anchors
    counts = data["counts"]
    assert sum(counts["positive"]) == len(positive) and sum(counts["mined"]) == len(negative)
    background = int((learning.assignment.matches == -1).sum())
    assert sum(counts["mined"]) + sum(counts["left"]) == background


def test_masks_are_those_of_the_network(xrays: dict[str, XRay], pages: dict[str, str]) -> None:
    x, masks = xrays["mask_rcnn"], data_of(pages["mask_rcnn"])["masks"]
    assert x.padded.masks is not None
    values = array(masks["values"]).reshape(-1, masks["side"], masks["side"]) / 255
    assert np.abs(values[0] - x.padded.masks[0][x.padded.valid[0]][0].numpy()).max() < 0.003
    pixels = x.prediction["masks"].flatten(1).sum(1).tolist()
    assert [mask.get("pixels", 0) for mask in masks["masks"]] == pixels


def test_a_cascade_s_boxes_stage_by_stage(xrays: dict[str, XRay], pages: dict[str, str]) -> None:
    """From the proposal to the detection; every box is what its stage made of the one before."""
    x, data = xrays["cascade_rcnn"], data_of(pages["cascade_rcnn"])["stages"]
    assert data["titles"] == ["proposal", "after stage 1", "after stage 2", "after stage 3"]
    assert len(data["detections"]) == len(x.prediction["boxes"]) > 0
    names = [stage.name for stage in x.stages]
    second = names.index("boxes after stage 2, sec. 4.1")
    for d, one in enumerate(data["detections"]):
        rows = x.rows(d)
        expected = x.stages[second].boxes[rows[second]].tolist()
        assert one["boxes"][2] == pytest.approx(expected, abs=0.01)
        final = x.to_network(x.prediction["boxes"][d][None])[0].tolist()
        assert one["boxes"][3] == pytest.approx(final, abs=0.02)
        assert one["scores"][0] is None and 0 <= one["scores"][1] <= 1
        assert one["scores"][3] == pytest.approx(float(x.prediction["scores"][d]), abs=1e-3)
        assert len(one["iou"]) == 4 and all(0 <= iou <= 1 for iou in one["iou"])
    assert 'id="stages"' not in pages["faster_rcnn"]


@pytest.mark.parametrize("name", DETECTORS)
def test_maps_of_attention(xrays: dict[str, XRay], pages: dict[str, str], name: str) -> None:
    """Of two detections, of each one's mask, and of all detected classes, by every method at two
    layers."""
    x, maps = xrays[name], data_of(pages[name])["attention"]
    classes = len(set(x.prediction["labels"].tolist()))
    masks = 2 * (name in MASKED)
    assert set(Counter(one["title"] for one in maps).values()) == {2 * len(METHODS)}
    assert len(maps) == (2 + masks + classes) * len(METHODS) * 2
    assert {one["layer"] for one in maps} == {"C4", "C5"}
    assert sum(one["detection"] is None for one in maps) == classes * len(METHODS) * 2
    first = next(one for one in maps if one["method"] == "hires-cam" and one["layer"] == "C5")
    (wanted,) = activations(x.model, x.batch, [0], ["hires-cam"], ["C5"])
    assert (first["height"], first["width"]) == wanted.map.shape
    assert (array(first["values"]) == wanted.map.flatten().numpy()).all()


# ---- the parts


def test_recall_is_counted_over_the_best() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [50, 50, 70, 70], [200, 200, 210, 210]])
    candidates = torch.tensor([[50.0, 50, 70, 66], [0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 10]])
    stage = BoxStage(
        "candidates", candidates, torch.tensor([0.3, 0.2, 0.9, 1.0]),
        torch.tensor([True, True, True, False]), *[None] * 3, {}, {}, None, None,
    )  # fmt: skip
    # By score: row 2 (IoU 0.8 with the first object), row 0 (0.8 with the second), row 1.
    assert found.ranked(stage).tolist() == [2, 0, 1]
    assert seen.found_at(boxes, stage, 0.5) == [1, 2]
    assert seen.found_at(boxes, stage, 0.9) == [3]
    assert seen.found_at(boxes[:0], stage, 0.5) == []


@pytest.mark.parametrize(("channels", "side"), [(5, 12), (40, 4)])
def test_principal_components(channels: int, side: int) -> None:
    """A map that is a ramp along x, a weaker one along y, and nothing else, shows just that."""
    rows, columns = torch.meshgrid(*[torch.linspace(-1, 1, side)] * 2, indexing="ij")
    one, other = torch.linalg.qr(torch.randn(channels, 2))[0].T
    features = 3 * columns * one[:, None, None] - rows * other[:, None, None] + 7
    image, explained = pictures.components(features)
    assert explained[:2] == pytest.approx([0.9, 0.1], abs=1e-5) and explained[2] < 1e-9
    red, green, _ = np.moveaxis(np.asarray(image, np.float64), -1, 0)
    for plane, ramp in ((red, columns), (green, rows)):
        assert abs(np.corrcoef(plane.ravel(), ramp.numpy().ravel())[0, 1]) > 0.99


def test_the_strongest_channels_come_first() -> None:
    features = torch.stack([torch.full((3, 3), v) for v in (1.0, -3.0, 0.0, 2.0)])
    index, share = pictures.strongest(features, 2)
    assert index == [1, 3] and share == pytest.approx([9 / 14, 4 / 14])


def test_level_names() -> None:
    assert seen.level_names("levels P3 to P7, sec. 4", 5) == ["P3", "P4", "P5", "P6", "P7"]
    assert seen.level_names("maps", 2) == ["1", "2"]


def test_the_function_about_a_line_is_shown() -> None:
    path = Path(source.__file__)
    text = path.read_text().splitlines()
    number = next(i for i, line in enumerate(text, 1) if "path, number = lines[name]" in line)
    shown = source.source_of(["a"], {"a": Line(path, number)})
    assert f"eyeline/inspection/page/source.py:{number}" in shown
    marked = re.findall(r"<mark>(.*?)</mark>", shown)
    assert len(marked) == 1 and "path, number = lines[name]" in html.unescape(marked[0])
    plain = html.unescape(re.sub("<[^>]+>", "", shown))
    assert "def source_of(" in plain and "def place_of(" not in plain
    assert source.place_of(Line(Path("/somewhere/mine.py"), 3)) == "mine.py:3"
    rpn = Path(eyeline.__file__).parent / "nn" / "heads" / "rpn.py"
    assert source.place_of(Line(rpn, 120)) == "eyeline/nn/heads/rpn.py:120"


@pytest.mark.parametrize(("ratio", "aligned"), [(2, True), (2, False), (0, True), (0, False)])
def test_samples_lie_where_roi_align_takes_them(ratio: int, aligned: bool) -> None:
    """On a map that tells its own column and row, a bin is the mean of its samples' places."""
    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(60.0), indexing="ij")
    level = torch.stack([rows, columns])[None]
    boxes = torch.tensor([[40.3, 21.7, 133.1, 90.2], [100.0, 50.0, 131.0, 140.0]])
    where = torch.zeros(2, dtype=torch.int64)
    out = roi_align([level], boxes, where, where, 7, [0.25], ratio, aligned)
    places = sample_positions(boxes, where, 7, [0.25], ratio, aligned)
    for region, (y, x) in zip(out, places, strict=True):
        torch.testing.assert_close(region[0], y.view(7, -1).mean(1)[:, None].expand(7, 7))
        torch.testing.assert_close(region[1], x.view(7, -1).mean(1)[None].expand(7, 7))
    edges = pool_edges(boxes, where, torch.tensor([[40, 60]] * 2), (7, 7), [0.25])
    pooled = roi_pool([level], boxes, where, where, 7, [0.25])
    torch.testing.assert_close(pooled[:, 0], edges[1] - 1.0)  # the last row is the largest
    torch.testing.assert_close(pooled[:, 1], edges[3] - 1.0)


# ---- in a browser


@pytest.mark.parametrize("name", DETECTORS)
def test_a_walk_through_all_controls(pages: dict[str, str], name: str, tmp_path: Path) -> None:
    errors, controls, shown = walked(pages[name], tmp_path)
    assert errors == []
    assert controls > 60 and 'data-ready="true"' in shown
    assert re.search(r"#0 was (missed|found)", shown)  # chosen by the address


@pytest.mark.parametrize(
    ("name", "annotated"), [(name, i % 2 == 0) for i, name in enumerate(DETECTORS)]
)
def test_nothing_found_and_nothing_there(name: str, annotated: bool, tmp_path: Path) -> None:
    """No detection, and no annotation or an empty one: the page says so and works."""
    options = known(name) | {"score_threshold": 0.9999}
    model = eyeline.create_model(name, classes=["cat", "dog"], **options)
    target = {
        "boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64),
        "masks": torch.zeros(0, 90, 120, dtype=torch.bool),
    }  # fmt: skip
    x = xray(model, torch.rand(3, 90, 120), target if annotated else None)
    page = explain(x, name, "noise", attention(x, class_names(x), 2))
    data = data_of(page)
    assert data["boxes"]["detections"] == [] and data["boxes"]["fates"] == []
    assert data["masks"] is None and ("kind" in data["anchors"]) == annotated
    errors, controls, shown = walked(page, tmp_path)
    assert errors == [] and controls > 18 and 'data-ready="true"' in shown
    assert "Nothing was found in this picture." in shown
    assert "there is no score to explain" in shown
    wanted = "The annotation has no object" if annotated else "Give an annotation (--target)"
    assert wanted in shown


def test_masks_that_are_not_annotated(xrays: dict[str, XRay]) -> None:
    """Such an annotation teaches nothing, but still tells what was found."""
    x = xrays["mask_rcnn"]
    assert x.target is not None
    boxes_alone = {key: value for key, value in x.target.items() if key != "masks"}
    data = data_of(explain(xray(x.model, x.image, boxes_alone), "mask_rcnn", PICTURE))
    assert data["anchors"]["missing"] == "the annotation has no masks, which this model learns from"
    assert len(data["boxes"]["fates"]) == int((~x.target["iscrowd"]).sum())


def test_a_script_error_is_told(pages: dict[str, str], tmp_path: Path) -> None:
    broken = pages["retinanet"].replace(
        "function drawCell(context, unit) {", "function drawCell() {"
    )
    assert broken != pages["retinanet"]
    errors, _, _ = walked(broken, tmp_path)
    assert errors and "not defined" in errors[0]
