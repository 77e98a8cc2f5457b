"""evaluate() on a detector that knows the answers."""

from __future__ import annotations

import contextlib
import io
import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import Subset

from eyeline.errors import EyelineError
from eyeline.evaluation import evaluate
from eyeline.evaluation.running import eval_mode

PICTURES = 7


class Squares(torch.utils.data.Dataset):
    """Pictures of different sizes, each with as many bright squares as its number says."""

    classes = ("square", "circle")

    def __len__(self):
        return PICTURES

    def __getitem__(self, i):
        if i >= PICTURES:
            raise IndexError(i)
        image = torch.zeros(3, 40 + i, 200 + 3 * i, dtype=torch.uint8)
        boxes = torch.tensor([[25.0 * k, 8, 25 * k + 12, 20] for k in range(i)]).reshape(-1, 4)
        for x1, y1, x2, y2 in boxes.int().tolist():
            image[:, y1:y2, x1:x2] = 255
        target = {
            "boxes": boxes,
            "labels": torch.zeros(i, dtype=torch.int64),
            "iscrowd": torch.zeros(i, dtype=torch.bool),
            "image_id": torch.tensor(100 + i),
        }
        return image, target


class Finder(nn.Module):
    """Finds the squares by their pixels, all but the last of each picture."""

    classes = ("square", "circle")
    name = "finder"

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(2, 2)
        self.batches = []
        self.dtypes = []

    def forward(self, images):
        assert not self.training and not self.norm.training
        assert torch.is_inference_mode_enabled()
        self.batches.append(len(images))
        self.dtypes.append(self.head(torch.ones(1, 2)).dtype)
        return [self.find(image) for image in images]

    def find(self, image):
        bright = image[0, 10] > 0  # (W,)
        edges = torch.diff(bright.int(), prepend=torch.zeros(1, dtype=torch.int32))
        starts = torch.nonzero(edges == 1)[:-1, 0]
        boxes = torch.stack(
            [starts, torch.full_like(starts, 8), starts + 12, torch.full_like(starts, 20)], 1
        )
        scores = torch.linspace(0.9, 0.6, len(starts))
        return {
            "boxes": boxes.float(),
            "scores": scores,
            "labels": torch.zeros(len(starts), dtype=torch.int64),
        }


@pytest.fixture(scope="module")
def report():
    return evaluate(Finder(), Squares(), progress=False)


def test_numbers(report):
    """21 squares, 15 found and none besides: precision 1 up to recall 15/21 (6 pictures miss 1)."""
    assert sum(len(t["boxes"]) for t in report.targets) == 21
    # 101 recalls 0, 0.01 .. 1: those up to 15/21 = 0.714 are 72.
    assert report.coco["AP50"] == pytest.approx(72 / 101)
    assert report.coco["AP"] == report.coco["AP75"] == report.coco["AP50"]
    assert report.coco["AR100"] == pytest.approx(15 / 21)
    assert report.coco["APl"] == -1  # no large squares
    assert report.voc["AP_every_point"] == pytest.approx(15 / 21)
    assert report.voc["AP_11point"] == pytest.approx(8 / 11)  # 0, 0.1 .. 0.7
    assert list(report.coco)[:3] == ["AP", "AP50", "AP75"] and len(report.coco) == 12
    square, circle = report.per_class["square"], report.per_class["circle"]
    assert square["objects"] == 21 and square["AP"] == report.coco["AP"]
    assert circle["objects"] == 0 and circle["AP"] is circle["AP_11point"] is None


def test_what_is_kept(report):
    assert [len(p["boxes"]) for p in report.predictions] == [0, 0, 1, 2, 3, 4, 5]
    assert report.image_ids == [100 + i for i in range(PICTURES)]
    assert report.paths is None and report.classes == ["square", "circle"]
    assert report.pictures_per_second > 1
    assert report.facts["model"] == "finder" and report.facts["data"] == "Squares"


@pytest.mark.parametrize(("batch_size", "batches"), [(1, [1] * 7), (3, [3, 3, 1])])
@pytest.mark.parametrize("workers", [0, 1])
def test_batches(report, batch_size, batches, workers):
    model = Finder()
    other = evaluate(model, Squares(), batch_size, progress=False, workers=workers)
    assert model.batches == batches
    assert other.coco == report.coco and other.image_ids == report.image_ids


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_precision(precision):
    model = Finder()
    evaluate(model, Squares(), precision=precision, progress=False)
    expected = torch.bfloat16 if precision == "bf16" else torch.float32
    assert set(model.dtypes) == {expected}


def test_modes_are_put_back():
    model = Finder().train()
    model.norm.eval()  # frozen by its owner
    evaluate(model, Squares(), progress=False)
    assert model.training and model.head.training and not model.norm.training


def test_interrupted_modes_are_put_back():
    model = Finder().train()

    def stop(*_):
        raise KeyboardInterrupt

    model.head.register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, Squares(), progress=False)
    assert model.training and model.norm.training
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def test_eval_mode_nests():
    model = nn.Sequential(nn.Dropout())
    with eval_mode(model):
        with eval_mode(model):
            pass
        assert not model[0].training
    assert model[0].training


@pytest.mark.parametrize(
    ("batch_size", "seconds"), [(1, [100, 0.5, 2, 0.5]), (2, [100, 1]), (4, [2])]
)
def test_speed_is_the_median_without_the_first_call(monkeypatch, batch_size, seconds):
    """A clock that gives each call so many seconds; a single call must do."""
    ticks = iter([tick for s in seconds for tick in (0, s)])
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks))
    short = Subset(Squares(), range(4))
    assert evaluate(Finder(), short, batch_size, progress=False).pictures_per_second == 2.0


def test_source_ids_and_paths(tmp_path):
    data = Squares()
    records = [SimpleNamespace(path=f"pictures/{i}.png") for i in range(PICTURES)]
    data.annotations = SimpleNamespace(records=records, category_ids=[18, 44], source="made up")
    report = evaluate(Finder(), data, progress=False)
    assert report.paths[3].name == "3.png" and report.facts["data"] == "made up"
    rows = json.loads(report.detections_json(tmp_path / "new" / "found.json").read_text())
    assert len(rows) == 15 and {row["category_id"] for row in rows} == {18}
    assert rows[0] == {
        "image_id": 102,
        "category_id": 18,
        "bbox": [0.0, 8.0, 12.0, 12.0],
        "score": pytest.approx(0.9),
    }


def test_anybody_can_recompute_the_numbers(report, tmp_path):
    """pycocotools on the written detections gives the report's numbers."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    path = report.detections_json(tmp_path / "found.json")
    truth = COCO()
    annotations = []
    for image_id, target in zip(report.image_ids, report.targets, strict=True):
        for x1, y1, x2, y2 in target["boxes"].tolist():
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
            ids = {"id": len(annotations) + 1, "image_id": image_id, "category_id": 0}
            annotations.append({**box, **ids, "iscrowd": 0})
    truth.dataset = {
        "images": [{"id": i} for i in report.image_ids],
        "categories": [{"id": 0, "name": "square"}, {"id": 1, "name": "circle"}],
        "annotations": annotations,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes(str(path)), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    assert list(report.coco.values()) == pytest.approx(run.stats.tolist(), abs=1e-6)


def test_json(report, tmp_path):
    content = json.loads(report.to_json(tmp_path / "results.json").read_text())
    assert content["coco"] == report.coco and content["voc"] == report.voc
    assert content["per_class"]["circle"]["AP"] is None
    assert content["pictures"] == 7 and content["classes"] == ["square", "circle"]


def test_table(report):
    lines = str(report).splitlines()
    assert lines[0].startswith("7 pictures, ")
    row = next(line for line in lines if line.strip().startswith("square"))
    assert row.split() == ["square", "21", "0.713", "0.713", "0.713", "0.714", "0.727", "0.714"]
    assert next(x for x in lines if x.strip().startswith("circle")).split()[1:] == ["0", *"------"]
    assert any("APs 0.713" in line and "APl -" in line for line in lines)


def test_silent_where_nobody_watches(capfd):
    evaluate(Finder(), Squares(), progress=True)
    assert capfd.readouterr().out == ""
    evaluate(Finder(), Squares(), progress=False)
    assert capfd.readouterr() == ("", "")


def test_progress_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal
    evaluate(Finder(), Squares(), progress=True)
    shown = capsys.readouterr()
    assert "evaluating" in shown.err and "7/7" in shown.err and shown.out == ""
    evaluate(Finder(), Squares(), progress=False)
    assert capsys.readouterr() == ("", "")


def named(names):
    data = Squares()
    data.classes = names
    return data


def test_classes_of_model_and_data():
    """Numbers stand for "unnamed"; names must agree; one side may be silent."""
    assert evaluate(Finder(), named(["0", "1"]), progress=False).classes == ["square", "circle"]
    assert evaluate(Finder(), named([]), progress=False).classes == ["square", "circle"]
    with pytest.raises(EyelineError, match="label 0 is 'square' to the model and 'circle'"):
        evaluate(Finder(), named(["circle", "square"]), progress=False)
    with pytest.raises(EyelineError, match=r"knows 2 classes \(square, circle\).* has 3"):
        evaluate(Finder(), named(["a", "b", "c"]), progress=False)
    model = Finder()
    model.classes = []
    with pytest.raises(EyelineError, match="names its classes"):
        evaluate(model, named([]), progress=False)


def test_bad_input():
    with pytest.raises(EyelineError, match="no precision 'fp8'; there are: float32, bf16"):
        evaluate(Finder(), Squares(), precision="fp8")
    with pytest.raises(EyelineError, match="no pictures"):
        evaluate(Finder(), Subset(Squares(), []))
