"""What is measured behind each stage of a cascade."""

from __future__ import annotations

import json

import pytest
import torch

from eyeline.errors import EyelineError
from eyeline.evaluation.cascade import IOUS, StageReport, measure_stages, overlaps
from eyeline.evaluation.evaluate import evaluate
from eyeline.metrics.detection import CocoMetric
from eyeline.registry import create_model
from eyeline.structures import Batch

CLASSES = ["one", "two", "three"]
SMALL = dict(
    classes=CLASSES, backbone="resnet18", min_size=96, max_size=128, fpn_channels=32,
    head_width=32, proposals=(200, 100), proposals_before_nms=(300, 200), score_threshold=0.001,
)  # fmt: skip


class Three(torch.utils.data.Dataset):
    classes = CLASSES

    def __len__(self):
        return 3

    def __getitem__(self, i):
        boxes = torch.tensor([[10.0, 10, 60, 50], [30, 20, 110, 85], [0, 0, 120, 90]])
        crowd = torch.tensor([False, False, True])
        target = {"boxes": boxes, "labels": torch.tensor([0, 2, 1]), "iscrowd": crowd}
        return torch.rand(3, 90, 120, generator=torch.Generator().manual_seed(i)), target


def build(**options):
    torch.manual_seed(0)
    model = create_model("cascade_rcnn", **{**SMALL, **options})
    for parameter in model.parameters():
        parameter.data.add_(0.03 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize(
    ("method", "stages", "detectors"),
    [("cascade", 3, 3), ("iterative_bbox", 3, 1), ("integral", 1, 3)],
)
def test_every_detector_at_every_stage(tmp_path, method, stages, detectors):
    model = build(method=method)
    report = measure_stages(model, Three(), batch_size=2, progress=False)
    assert len(report.ap) == len(report.moves) == stages and model.training
    assert [len(row) for row in report.ap] == [detectors] * stages
    assert all(len(values) == len(IOUS) for row in report.ap for values in row)
    assert report.together == pytest.approx(whole(model), abs=1e-6)  # the model's own numbers
    told = json.loads(report.to_json(tmp_path / "new" / "stages.json").read_text())
    assert told["u"] == [0.5, 0.6, 0.7][:detectors] and len(told["stages"]) == stages
    assert told["stages"][0]["boxes"] == sum(report.proposals[:1]) > 0
    page = report.to_html(tmp_path / "stages.html").read_text()
    assert page.count("<svg") >= 2 and "figure 4" in page
    assert report.to_svg(tmp_path / "iou.svg").read_text().startswith("<svg xmlns")


def whole(model):
    found = evaluate(model, Three(), progress=False)
    metric = CocoMetric(CLASSES)
    metric.update(found.predictions, found.targets)
    numbers = metric.compute()
    assert sum(numbers["by_iou"]) / 10 == pytest.approx(numbers["AP"])
    assert numbers["by_iou"][5] == pytest.approx(numbers["AP75"])
    return numbers["by_iou"]


def test_iou_before_and_after_is_with_the_same_object():
    before = torch.tensor([[[0.0, 0, 20, 20], [0, 0, 20, 30], [0, 0, 4, 4], [80, 80, 99, 99]]])
    after = torch.tensor([[[0.0, 0, 20, 10], [40, 0, 60, 20], [0, 0, 20, 20], [0, 0, 20, 20]]])
    valid = torch.tensor([[True, True, True, True]])
    target = {  # in a picture of twice the size
        "boxes": torch.tensor([[0.0, 0, 40, 40], [80, 0, 120, 40], [160, 160, 198, 198]]),
        "iscrowd": torch.tensor([False, False, True]),
    }
    size = torch.tensor([[100, 100]])
    batch = Batch(torch.zeros(1, 3, 100, 100), size, 2 * size)
    [found] = overlaps(before, after, valid, [target], batch)
    assert found.tolist() == [
        pytest.approx([1.0, 0.5]),
        pytest.approx([2 / 3, 0.0]),  # moved onto another object, not onto its own
    ]
    [nothing] = overlaps(before, after, ~valid, [target], batch)
    assert nothing.shape == (0, 2)


def test_curves_are_means_of_bins():
    moves = torch.tensor(
        [[0.51, 0.6]] * 5 + [[0.52, 0.7]] * 5 + [[0.9, 1.0]] * 4 + [[1.0, 0.9]] * 5
    )
    report = StageReport([0.5, 0.6], "cascade", [[[]]], [], [moves], [100], 1)
    first, last = report.curve(0)  # four are too few for a mean
    assert first == (pytest.approx(0.515), pytest.approx(0.65), 10)
    assert last == (pytest.approx(1.0), pytest.approx(0.9), 5)
    assert report.close(0, 0.6) == pytest.approx(0.09)


def test_detectors_of_one_u_keep_their_numbers(tmp_path):
    ap = [[[0.1 * (2 * s + t)] * 10 for t in range(2)] for s in range(2)]
    moves = [torch.tensor([[0.6, 0.7]])] * 2
    report = StageReport([0.5, 0.5], "cascade", ap, [0.4] * 10, moves, [4, 2], 1)
    told = json.loads(report.to_json(tmp_path / "stages.json").read_text())
    for s, stage in enumerate(told["stages"]):
        assert [stage["ap"][key][0] for key in "12"] == pytest.approx([row[0] for row in ap[s]])
        assert stage["share_from_iou"] == {"1": (0.25, 0.5)[s], "2": (0.25, 0.5)[s]}
    page = report.to_html(tmp_path / "stages.html").read_text()
    assert "detector 1, u = 0.5" in page and "detector 2, u = 0.5" in page


def test_what_has_no_stages_is_named():
    model = create_model("faster_rcnn", num_classes=3, backbone="resnet18", size=96)
    with pytest.raises(EyelineError, match="faster_rcnn has no stages"):
        measure_stages(model, Three())
    with pytest.raises(EyelineError, match="no pictures"):
        measure_stages(build(), torch.utils.data.Subset(Three(), []))
