"""What the page of an x-ray says of settings, numbers and models out of the ordinary."""

from __future__ import annotations

import html
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from page_walk import data_of, known, walked

import eyeline
import eyeline.note as note_module
from eyeline.errors import EyelineError
from eyeline.inspection.cam import METHODS, box_score, score_activations
from eyeline.inspection.explain import class_names, explain
from eyeline.inspection.page import source
from eyeline.inspection.page.attention import _why_black, attention
from eyeline.inspection.xray import XRay, xray
from eyeline.structures import Candidates

TARGET = {"boxes": torch.tensor([[10.0, 20.0, 90.0, 80.0]]), "labels": torch.tensor([1])}


def look(name: str, **options: Any) -> XRay:
    torch.manual_seed(0)
    model = eyeline.create_model(name, classes=["cat", "dog"], **known(name) | options)
    return xray(model, torch.rand(3, 90, 120), TARGET)


def page_of(x: XRay, maps: int = 0) -> str:
    found = attention(x, class_names(x), maps) if maps else None
    return explain(x, "a model", "noise", found)


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
    errors, _, shown = walked(page_of(x), tmp_path, walk=False)
    text = words(shown)
    assert errors == []
    assert "lowered by soft NMS until below 0.001" in text and "suppressed at an IoU" not in text
    assert "better box of any class" in text and "overlap it by 0.7 or more" in text
    assert ("exp(−IoU² / 0.5)" in text) == (kind == "soft_gaussian")
    assert "It suppressed no other box" not in text


def test_hard_nms_is_told_as_hard(tmp_path: Path) -> None:
    errors, _, shown = walked(page_of(look("retinanet")), tmp_path, walk=False)
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
    _, _, shown = walked(page_of(x), tmp_path, walk=False)
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


def test_a_bad_address_does_no_harm(tmp_path: Path) -> None:
    page = page_of(look("retinanet"))
    errors, _, shown = walked(page, tmp_path, walk=False, address="#100%")
    assert errors == [] and 'data-ready="true"' in shown
    assert re.search(r'<p id="error"[^>]* hidden', shown)
    broken = page.replace("function drawCell(context, unit) {", "function drawCell() {")
    errors, _, shown = walked(broken, tmp_path, walk=False)
    assert errors and f"Parts of this page do not work: {errors[0]}" in words(shown)
    assert not re.search(r'<p id="error"[^>]* hidden', shown)
    assert page.count("<noscript>") == 1


def test_canvases_with_keys_are_told_as_such(tmp_path: Path) -> None:
    _, _, shown = walked(page_of(look("retinanet")), tmp_path, walk=False)
    figures = re.findall(r"<figure><canvas(.*?)></canvas><figcaption(.*?)>", shown)
    assert len(figures) > 5
    for canvas, caption in figures:
        keys = 'tabindex="0"' in canvas
        assert ('role="application"' in canvas) == keys == ('aria-live="polite"' in caption)
    assert any('tabindex="0"' in canvas for canvas, _ in figures)
