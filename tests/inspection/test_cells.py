"""The section of a page that shows a YOLO's cells: true, from what is said to the box."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from page_walk import array, data_of, walked

import eyeline
from eyeline.inspection.explain import explain
from eyeline.inspection.page.cells import cells
from eyeline.inspection.xray import XRay, xray
from eyeline.ops.boxes import clip
from eyeline.ops.iou import box_iou

NAMES = ["cat", "dog"]
SMALL: dict[str, Any] = dict(backbone="resnet18", size=128, neck_width=32, max_detections=20)
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "logistic": ("yolov3", dict(convention="darknet")),
    "one scale": ("yolov2", {}),
    "linear": ("yolov3", dict(offsets="linear")),
    "anchor": ("yolov3_tiny", dict(offsets="anchor")),
    "parts": ("yolov1", dict(head_width=32)),
}
# The second is where the first is; the third is a crowd; the fourth lies elsewhere.
TARGET = {
    "boxes": torch.tensor(
        [[10.0, 20, 70, 60], [10, 20, 70, 60], [0, 0, 30, 30], [80, 50, 118, 88]]
    ),
    "labels": torch.tensor([1, 0, 1, 1]),
    "iscrowd": torch.tensor([False, False, True, False]),
}


def look(kind: str) -> XRay:
    name, options = KINDS[kind]
    torch.manual_seed(0)
    model: Any = eyeline.create_model(name, classes=NAMES, **SMALL | options)
    heads = [model.output] if name == "yolov1" else [
        layer for key, layer in model.named_modules() if key.endswith("output")
    ]  # fmt: skip
    for layer in heads:  # what a fresh one says is nearly nothing
        torch.nn.init.normal_(layer.bias, std=0.5)
    return xray(model, torch.rand(3, 90, 120), TARGET)


SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("one scale", "linear", "anchor")]


@pytest.fixture(scope="module", params=["logistic", "parts", *SLOW])
def x(request: pytest.FixtureRequest) -> XRay:
    return look(request.param)


def test_each_object_has_the_row_that_learning_gave_it(x: XRay) -> None:
    data = cells(x, NAMES)
    assert isinstance(data, dict) and x.learning is not None
    matches, (first, second, last) = x.learning.assignment.matches, data["objects"]
    assert [o["object"] for o in data["objects"]] == [0, 1, 3]  # not the crowd
    assert first["row"] == second["row"] != last["row"]
    holder = int(matches[first["row"]])  # of two in one place
    assert holder == (0 if data["kind"] == "parts" else 1)
    assert {first["by"], second["by"]} == {None, holder} and last["by"] is None
    assert matches[last["row"]] == 3 and data["detections"][0] == x.rows(0)[0]
    assert x.moves is not None
    assert torch.equal(torch.tensor(array(data["moves"])).view(-1, 4), x.moves.moves)


def test_the_numbers_told_lead_to_the_box(x: XRay, tmp_path: Path) -> None:
    """Of the object that is chosen first, as the page's script computes them."""
    errors, _, shown = walked(explain(x, "a model", "noise"), tmp_path, script="")
    assert errors == []
    data = cells(x, NAMES)
    assert isinstance(data, dict) and x.moves is not None
    surest = max(data["objects"], key=lambda o: float(x.moves.objectness[o["row"]]))  # type: ignore[union-attr]
    stage, row = x.stages[0], surest["row"]
    table = shown[shown.index("From what it says to a box") :]
    table = re.sub("</?(sup|span|strong)>", "", table[: table.index("</table>")])
    rows = table.replace("−", "-").split("<tr>")[2:]
    lines = [re.findall("<td.*?>(.*?)</td>", line) for line in rows]
    said = [float(line[1]) for line in lines[:5]]
    assert said[:4] == pytest.approx(x.moves.moves[row].tolist(), abs=1e-3)
    assert said[4] == pytest.approx(float(x.moves.objectness[row]), abs=1e-3)
    cx, cy, w, h = (float(line[3]) for line in lines[:4])
    box = torch.tensor([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])
    inside = clip(box[None] - x.begin, x.batch.sizes[0]) + x.begin
    assert torch.allclose(inside[0], stage.boxes[row], atol=0.11)
    assert float(lines[5][3]) == pytest.approx(float(stage.scores[row]), abs=1e-3)
    wanted = TARGET["boxes"][surest["object"]]
    wanted = x.to_network(wanted[None])[0]
    assert [float(line[4]) for line in lines[:2]] == pytest.approx(
        ((wanted[:2] + wanted[2:]) / 2).tolist(), abs=0.06
    )
    overlap = float(box_iou(box[None], wanted[None]))
    sentence = "overlaps it most .IoU" if data["kind"] == "parts" else "overlaps the object by"
    told = re.search(sentence + r" (\d\.\d+)", shown)
    assert told is not None and float(told[1]) == pytest.approx(overlap, abs=0.02)


def test_other_models_have_no_such_section() -> None:
    model = eyeline.create_model("retinanet", classes=NAMES, backbone="resnet18", size=64)
    found = xray(model, torch.rand(3, 50, 60))
    assert cells(found, NAMES) is None and "cells" not in data_of(explain(found, "m", "p"))
