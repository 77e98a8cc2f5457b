"""What the page of an x-ray says of settings, numbers and models out of the ordinary."""

from __future__ import annotations

import html
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from page_walk import array, data_of, known, walked

import eyeline
import eyeline.note as note_module
from eyeline.errors import EyelineError
from eyeline.inspection.cam import METHODS, box_score, score_activations
from eyeline.inspection.explain import _sizes, class_names, explain
from eyeline.inspection.page import source
from eyeline.inspection.page.attention import _why_black, attention
from eyeline.inspection.page.found import ranked
from eyeline.inspection.page.pictures import components
from eyeline.inspection.xray import XRay, xray
from eyeline.ops.roi_align import roi_align, roi_pool
from eyeline.registry import list_models
from eyeline.structures import Candidates

TARGET = {"boxes": torch.tensor([[10.0, 20.0, 90.0, 80.0]]), "labels": torch.tensor([1])}


def look(name: str, **options: Any) -> XRay:
    torch.manual_seed(0)
    model = eyeline.create_model(name, classes=["cat", "dog"], **known(name) | options)
    return xray(model, torch.rand(3, 90, 120), TARGET)


def page_of(x: XRay, maps: int = 0) -> str:
    found = attention(x, class_names(x), maps) if maps else None
    return explain(x, "a model", "noise", found)


def doing(script: str) -> str:
    """A script for `walked` that waits for the page to be ready."""
    return """<script>(async () => {
      const ready = () => document.documentElement.dataset.ready === "true";
      while (!ready()) await new Promise((done) => setTimeout(done, 25));
      const named = (label) => [...document.querySelectorAll("input")]
        .find((one) => one.parentElement.textContent === label);
      const canvas = (label) => document.querySelector(`canvas[aria-label^="${label}"]`);
      const key = (on, name) => on.dispatchEvent(new KeyboardEvent("keydown", { key: name }));
      SCRIPT
    })();</script>""".replace("SCRIPT", script)


def words(shown: str) -> str:
    seen = re.sub(r"<(script|style).*?</\1>", "", shown, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub("<[^>]+>", " ", seen)).split())


@pytest.mark.parametrize("kind", ["soft_linear", "soft_gaussian"])
def test_soft_nms_is_not_told_as_hard(kind: str, tmp_path: Path) -> None:
    x = look("retinanet", nms=kind, vote_iou=0.7, class_agnostic_nms=True)
    data = data_of(page_of(x))
    assert data["boxes"]["limits"]["floor"] == 0.001 and data["boxes"]["limits"]["vote"] == 0.7
    assert ("sigma" in data["boxes"]["limits"]) == (kind == "soft_gaussian")
    assert all(step["suppressed"] is None for step in data["boxes"]["detections"][0]["steps"])
    errors, _, shown = walked(page_of(x), tmp_path, script="")
    text = words(shown)
    assert errors == []
    assert "lowered by soft NMS until below 0.001" in text and "suppressed at an IoU" not in text
    assert "better box of any class" in text and "overlap it by 0.7 or more" in text
    assert ("exp(−IoU² / 0.5)" in text) == (kind == "soft_gaussian")
    assert "It suppressed no other box" not in text


def test_hard_nms_is_told_as_hard(tmp_path: Path) -> None:
    errors, _, shown = walked(page_of(look("retinanet")), tmp_path, script="")
    text = words(shown)
    assert errors == []
    assert "suppressed at an IoU above 0.5" in text
    assert "soft NMS" not in text and "voting" not in text


def test_a_saturated_score_says_why_its_map_is_black() -> None:
    x = look("retinanet", score_threshold=0.0)
    (usual,) = score_activations(x.model, x.batch, [box_score(0)], ["hires-cam"])
    assert not usual.flat and _why_black(usual) == ""
    certain = [lambda padded: (box_score(0)(padded) + 100).sigmoid()]
    (one,) = score_activations(x.model, x.batch, certain, ["hires-cam"])
    assert one.flat and not one.map.any() and "saturated" in _why_black(one)
    assert set(METHODS) == {map.method for map in attention(x, ["cat", "dog"], 1)}  # type: ignore[union-attr]


def test_anchors_that_count_are_summed(tmp_path: Path) -> None:
    """With torchvision's way the loss is divided by all of them, forced or not."""
    x = look("retinanet", convention="torchvision")
    assert x.learning is not None
    counts = data_of(page_of(x))["anchors"]["counts"]
    both = sum(row["positive"] + row["forced"] for row in counts)
    assert both == (x.learning.assignment.matches >= 0).sum() > 0
    _, _, shown = walked(page_of(x), tmp_path, script="")
    table = shown[shown.index("positive and forced together") :]
    last = re.findall(r"<td.*?>(.*?)</td>", table[: table.index("</table>")])[-7:]
    assert last[0] == "all" and last[4] == str(both)


def test_a_function_is_shown_with_its_decorators() -> None:
    x = look("faster_rcnn")
    shown = words(source.source_of([x.stages[1].name], x.lines))
    assert "@torch.no_grad()" in shown


def test_masks_name_their_threshold() -> None:
    for threshold, told in ((0.3, 0.3), (None, 0.5)):
        x = look("mask_rcnn", mask_threshold=threshold)
        masks = data_of(page_of(x))["masks"]
        assert masks["threshold"] == told
        given = x.prediction["masks"]
        pasted = given if threshold else given >= 0.5
        assert [one.get("pixels", 0) for one in masks["masks"]] == pasted.flatten(1).sum(1).tolist()


@pytest.mark.parametrize("name", ["retinanet", "mask_rcnn"])
@pytest.mark.parametrize("lacking", ["names", "maps", "parents"])
def test_a_model_of_one_s_own(
    name: str, lacking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that does not note all: the sections say what is missing, and nothing breaks."""
    real = note_module.note

    def noted(title: str, value: Any, *show: Any) -> Any:
        if " to " in title and lacking == "maps":
            return value
        if lacking == "parents" and show:
            return real(title, value, lambda *given: unlinked(show[0](*given)), *show[1:])
        return real(
            "maps of mine" if " to " in title and lacking == "names" else title, value, *show
        )

    def unlinked(shown: Any) -> Any:
        return shown._replace(parent=None) if isinstance(shown, Candidates) else shown

    for module in list(sys.modules.values()):
        if getattr(module, "note", None) is real:
            monkeypatch.setattr(module, "note", noted)
    page = page_of(look(name), 1)
    errors, controls, shown = walked(page, tmp_path)
    text = words(shown)
    assert errors == [] and controls > 10 and 'data-ready="true"' in shown
    if lacking == "names":
        assert 'none of its notes says "C2 to C5"' in text
    if lacking == "maps":
        assert "notes no feature maps." in text and "on which a score could hang" in text
        assert "do not stand in the cells of maps" in text
    if lacking == "parents":
        assert "Boxes alone: this model's file does not note from which row" in text
        assert data_of(page)["boxes"]["detections"]


def test_weights_that_are_no_numbers() -> None:
    for name in ("retinanet", "faster_rcnn"):
        model = eyeline.create_model(name, classes=["cat", "dog"], **known(name))
        with torch.no_grad():
            next(model.fpn.parameters()).fill_(torch.nan)
        with pytest.raises(EyelineError, match="not finite numbers") as raised:
            xray(model, torch.rand(3, 90, 120), TARGET)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("convention", "seen"), [("paper", "0"), ("darknet", "grey")])
def test_the_picture_is_shown_as_it_was_given(convention: str, seen: str, tmp_path: Path) -> None:
    """A tall one, the upper half red, the lower blue: also where the network sees it in a square
    of grey."""
    torch.manual_seed(0)
    model = eyeline.create_model(
        "yolov3_tiny", classes=["cat", "dog"], backbone="resnet18", size=128, neck_width=16,
        convention=convention,
    )  # fmt: skip
    image = torch.zeros(3, 120, 45)
    image[0, :60], image[2, 60:] = 1, 1
    page = page_of(xray(model, image))
    data = data_of(page)["picture"]
    left = {"0": 0, "grey": 40}[seen]
    assert data["original"] == [120, 45] and data["inside"] == [left, 0, left + 48, 128]
    assert data["padded"] == [128, {"0": 64, "grey": 128}[seen]]
    script = """
      const shown = canvas("The picture as it was given");
      const { width, height } = shown;
      const look = (x, y) => [...shown.getContext("2d").getImageData(x * width, y * height, 1, 1)
        .data.slice(0, 3)].map((v) => Math.round(v / 255));
      const found = [look(.1, .1), look(.9, .3), look(.1, .7), height > width];
      document.body.append(`looked ${found.join(" ")}`);
    """
    errors, _, shown = walked(page, tmp_path, doing(script))
    assert errors == [] and "looked 1,0,0 1,0,0 0,0,1 true" in shown
    assert f"Beyond the dashed line it is padded with {seen}." in shown


@pytest.mark.parametrize(
    ("width", "told"),
    [(60, "× 1.067; "), (61, "× 1.049 in width and × 1.033 in height; ")],
)
def test_both_scales_are_told_where_they_differ(width: int, told: str) -> None:
    model = eyeline.create_model(
        "yolov3_tiny", num_classes=2, backbone="resnet18", size=64, neck_width=16
    )
    assert told in _sizes(xray(model, torch.rand(3, 30, width)))


def test_a_bad_address_does_no_harm(tmp_path: Path) -> None:
    page = page_of(look("retinanet"))
    errors, _, shown = walked(page, tmp_path, script="", address="#100%")
    assert errors == [] and 'data-ready="true"' in shown
    assert re.search(r'<p id="error"[^>]* hidden', shown)
    broken = page.replace("function drawCell(context, unit) {", "function drawCell() {")
    errors, _, shown = walked(broken, tmp_path, script="")
    assert errors and f"Parts of this page do not work: {errors[0]}" in words(shown)
    assert not re.search(r'<p id="error"[^>]* hidden', shown)
    assert page.count("<noscript>") == 1


def test_canvases_with_keys_are_told_as_such(tmp_path: Path) -> None:
    _, _, shown = walked(page_of(look("retinanet")), tmp_path, script="")
    figures = re.findall(r"<figure><canvas(.*?)></canvas><figcaption(.*?)>", shown)
    assert len(figures) > 5
    for canvas, caption in figures:
        keys = 'tabindex="0"' in canvas
        assert ('role="application"' in canvas) == keys == ('aria-live="polite"' in caption)
    assert any('tabindex="0"' in canvas for canvas, _ in figures)


def test_anchors_of_a_place_at_every_level(tmp_path: Path) -> None:
    x = look("retinanet")
    script = """named("of this place, all levels").click();
      key(canvas("The picture with anchors"), "ArrowRight");"""
    errors, _, shown = walked(page_of(x), tmp_path, doing(script), "#anchors:level=0")
    assert errors == []
    part = shown[shown.index("and the cells there of all levels") :]
    table = part[part.index("<tbody>") : part.index("</tbody>")]
    rows = [re.findall(r"<td.*?>(.*?)</td>", row) for row in table.split("<tr>")[1:]]
    assert [row[1] for row in rows] == [f"P{i}" for i in range(3, 8) for _ in range(9)]
    first = data_of(page_of(x))["anchors"]["levels"][0]
    place = re.search(r"Level P3, row (\d+), column (\d+)", shown)
    assert place is not None
    cell = int(place[1]) * first["width"] + int(place[2])
    wanted = x.stages[0].scores[9 * cell : 9 * cell + 9]
    assert [float(row[3]) for row in rows[:9]] == pytest.approx(wanted.tolist(), abs=0.006)


@pytest.mark.parametrize("name", ["retinanet", "faster_rcnn"])
def test_what_the_first_nms_suppressed(name: str, tmp_path: Path) -> None:
    x = look(name)
    page = page_of(x)
    data = data_of(page)["proposals"]
    place, by, overlap = (torch.tensor(array(data[key])) for key in ("from", "by", "overlap"))
    last = next(i for i, stage in enumerate(x.stages) if "nms" in stage.limits)
    before, after = x.stages[last - 1], x.stages[last]
    rows = ranked(before)
    assert after.suppressor is not None and after.overlap is not None and after.parent is not None
    place, by = place.long(), by.long()
    assert (rows[place] == after.parent[ranked(after)]).all()
    assert (by >= 0).sum() == (after.suppressor >= 0).sum() > 0
    for row, other, iou in zip(rows, by, overlap, strict=True):
        if other >= 0:
            assert rows[other] == after.suppressor[row]
            assert float(iou) == pytest.approx(float(after.overlap[row]), abs=1e-4)
    script = 'for (let i = 0; i < 3; i++) key(canvas("Boxes after NMS"), "ArrowDown");'
    errors, _, shown = walked(page, tmp_path, script=doing(script))
    count = (by == place[2]).sum()
    assert errors == []
    told = f"The box in place 3 after NMS suppressed {count} other"
    assert told in words(shown)


def test_crops_are_what_the_pooler_gives() -> None:
    """Of the three planes that the page shows of a map, as both poolings make of them."""
    x = look("faster_rcnn")
    data = data_of(page_of(x))
    (cut,) = data["regions"]
    for name, pooled in (("aligned_crops", roi_align), ("pooled_crops", roi_pool)):
        crops = array(cut[name]).reshape(-1, 3, cut["size"], cut["size"])
        assert len(crops) == len(cut["regions"]) > 0
        for i in (0, len(crops) - 1):
            region = cut["regions"][i]
            level = list(x.maps.values())[-1][region["level"]]
            planes = torch.from_numpy(np.array(components(level)[0])).permute(2, 0, 1)[None].float()
            scale = [1 / region["cell"]]
            where = torch.zeros(1, dtype=torch.int64)
            box = x.cuts[0].boxes[region["row"]][None]
            more = (x.cuts[0].sampling_ratio, x.cuts[0].aligned) if pooled is roi_align else ()
            wanted = pooled([planes], box, where, where, cut["size"], scale, *more)[0]  # type: ignore[operator]
            assert np.abs(crops[i] - wanted.numpy()).max() <= 0.51


def test_crops_are_drawn(tmp_path: Path) -> None:
    errors, _, shown = walked(page_of(look("mask_rcnn")), tmp_path)
    text = words(shown)
    assert errors == []
    assert "what RoIAlign gave, 14 × 14" in text and "what RoI pooling would give" in text


@pytest.mark.parametrize("name", list_models("detection"))
def test_an_anchor_costs_few_bytes(name: str) -> None:
    """Two for each share and number, one for each kind, and a third more as text."""
    x = look(name)
    anchors = data_of(page_of(x))["anchors"]
    of_anchors = [value["data"] for value in anchors.values() if isinstance(value, dict)]
    count = sum(map(len, x.anchors))
    assert len(of_anchors) >= (5 if "missing" not in anchors else 1)
    assert sum(map(len, of_anchors)) <= 14 * count + 4 * len(of_anchors)


@pytest.mark.slow
@pytest.mark.parametrize("name", list_models("detection"))
def test_a_page_of_usual_size(name: str) -> None:
    """At the papers' 800 pixels, with all the detections that there may be."""
    torch.manual_seed(0)
    options = {"backbone": "resnet18", "score_threshold": 0.005}
    model = eyeline.create_model(name, classes=["cat", "dog"], **options)
    image = torch.rand(3, 480, 640)
    target = TARGET | {"masks": torch.ones(1, 480, 640, dtype=torch.bool)}
    x = xray(model, image, target)
    assert x.batch.sizes[0].min() == 800 and len(x.prediction["boxes"]) > 0
    assert len(page_of(x, 4)) < 15_000_000
