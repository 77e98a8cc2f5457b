"""Masks through every command: train, eval, predict, and what they write."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset

from eyeline.checkpoints.source import read_file
from eyeline.cli import main
from eyeline.data.datasets import open_dataset
from eyeline.data.samples import write_samples
from eyeline.errors import EyelineError
from eyeline.evaluation import evaluate
from eyeline.export import optimize
from eyeline.inference import Predictor
from eyeline.inference.predictor import load_model
from eyeline.ops.segmentations import decode_masks
from eyeline.registry import create_model
from eyeline.training import load_recipe, train_recipe

SETTINGS = [
    "model.backbone=resnet18", "model.fpn_channels=16", "model.head_width=32",
    "model.mask_width=16", "model.mask_depth=1", "model.size=64", "model.proposals=[60,30]",
    "model.score_threshold=0.01", "model.max_detections=20", "data.transforms=[]",
    "data.workers=0", "epochs=1", "batch_size=4", "eval.metric=mask_AP50", "log.tensorboard=false",
]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    pytest.importorskip("sklearn")
    return write_samples(tmp_path_factory.mktemp("data") / "s", train=8, val=4, size=64)


@pytest.fixture(scope="module")
def run(data):
    """A run folder; one epoch teaches nothing, but everything is written."""
    folder = data.parent / "run"
    arguments = ["train", "mask_rcnn", *SETTINGS, "--data", str(data), "--out", str(folder)]
    assert main.run(arguments) == 0
    return folder


def test_training_reads_masks_by_itself_and_measures_them(run):
    recipe = load_recipe(run / "recipe.yaml")
    assert recipe.data.masks is True
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    [epoch] = [line for line in lines if line["event"] == "epoch"]
    assert epoch["metrics"]["mask_AP50"] >= 0 and epoch["val_losses"]["mask"] > 0
    assert (run / "best.safetensors").is_file()


def test_annotations_without_masks_are_an_error(data, tmp_path):
    folder = tmp_path / "boxes"
    (folder / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        (folder / split).symlink_to(data / split)
        path = data / "annotations" / f"instances_{split}.json"
        content = json.loads(path.read_text())
        for annotation in content["annotations"]:
            del annotation["segmentation"]
        (folder / "annotations" / path.name).write_text(json.dumps(content))
    recipe = load_recipe(
        {"model": {"name": "mask_rcnn", "backbone": "resnet18"}, "data": {"path": str(folder)}},
        [f"out={json.dumps(str(tmp_path / 'r'))}"],
    )
    with pytest.raises(EyelineError, match=r"instances_train\.json: the annotations have no masks"):
        train_recipe(recipe)
    assert not (tmp_path / "r").exists()


def test_objects_without_a_mask_are_named(data, tmp_path):
    (tmp_path / "val").symlink_to(data / "val")
    content = json.loads((data / "annotations" / "instances_val.json").read_text())
    content["annotations"][2]["segmentation"] = []
    (tmp_path / "val.json").write_text(json.dumps(content))
    dataset = open_dataset(tmp_path / "val.json", "val")
    assert dataset.has_masks
    with pytest.raises(EyelineError, match=r"without a mask: .*annotations\[2\]"):
        dataset.use_masks()


def test_eval_writes_mask_numbers(run, data, capsys):
    out = run.parent / "eval"
    assert main.run(["eval", str(run), "--out", str(out)]) == 0
    assert "all, masks" in capsys.readouterr().out
    results = json.loads((out / "results.json").read_text())
    assert set(results["segm"]) == set(results["coco"])
    assert "mask_AP" in results["per_class"]["3"]
    detections = json.loads((out / "detections.json").read_text())
    assert detections and all(d["segmentation"]["size"] == [64, 64] for d in detections)
    page = (out / "report.html").read_text()
    assert "Are the masks right?" in page and "mask AP50" in page
    # pycocotools reads the file, and finds the same.
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    truth = coco.COCO(str(data / "annotations" / "instances_val.json"))
    measured = cocoeval.COCOeval(truth, truth.loadRes(detections), "segm")
    measured.evaluate()
    measured.accumulate()
    measured.summarize()
    np.testing.assert_allclose(measured.stats, list(results["segm"].values()), atol=1e-6)


@pytest.mark.parametrize("form", ["rle", "polygons"])
def test_predict_writes_masks(run, data, form, capsys):
    out = run.parent / f"predicted-{form}"
    more = ["--polygons"] if form == "polygons" else []
    source = str(data / "val")
    arguments = ["predict", str(run), source, "--out", str(out), "--threshold", "0.01", *more]
    capsys.readouterr()
    assert main.run([*arguments, "--json-lines"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    content = json.loads((out / "detections.json").read_text())
    assert content["annotations"]
    told = [row["segmentation"] for line in lines for row in line["detections"]]
    assert told == [annotation["segmentation"] for annotation in content["annotations"]]
    results = Predictor(run, score_threshold=0.01)(source)
    masks = torch.cat([result.masks for result in results])
    assert len(masks) == len(content["annotations"])
    for annotation, mask in zip(content["annotations"], masks, strict=True):
        assert isinstance(annotation["segmentation"], dict if form == "rle" else list)
        assert annotation["area"] == mask.sum()
        assert (decode_masks([annotation["segmentation"]], 64, 64)[0] == mask.numpy()).all()
    assert Image.open(out / "00000.jpg").size == (512, 512)


def test_a_perfect_model_scores_one(data):
    """evaluate() on the truth itself, given back by a model."""
    dataset = open_dataset(data, "val", masks=True)

    class Knows(torch.nn.Module):
        classes = dataset.classes

        def forward(self, images):
            self.at = getattr(self, "at", -1) + 1
            target = dataset[self.at][1]
            return [
                {"scores": torch.ones(len(target["labels"]))}
                | {key: target[key] for key in ("boxes", "labels", "masks")}
            ]

    report = evaluate(Knows(), dataset, progress=False)
    assert report.segm is not None
    assert report.segm["AP"] == pytest.approx(1) and report.coco["AP"] == pytest.approx(1)
    assert "masks" not in report.predictions[0] and report.predictions[0]["rle"]
    # Masks of one picture only: nothing is claimed about masks.
    part = open_dataset(data, "val")
    assert evaluate(Knows(), Subset(part, range(2)), progress=False).segm is None


def test_optimized_and_in_bfloat16(run, data):
    model = load_model(run).eval()
    image = str(sorted((data / "val").iterdir())[0])
    plain, half = (Predictor(model, precision=p, score_threshold=0.01) for p in ("float32", "bf16"))
    a, b = plain(image), half(image)
    assert len(a) and len(b)
    assert b.masks.dtype == torch.bool and b.masks.shape == (len(b), 64, 64)
    picture = torch.from_numpy(np.array(Image.open(image))).permute(2, 0, 1)
    with torch.no_grad():
        [fast] = optimize(model)([picture])
        model.config = replace(model.config, mask_threshold=None)
        [raw], [soft] = model([picture]), optimize(model)([picture])
    torch.testing.assert_close(raw["boxes"], soft["boxes"], atol=1e-2, rtol=0)
    # Where a box ends between two pixels a rounding error decides.
    assert ((raw["masks"] - soft["masks"]).abs() > 1e-2).float().mean() < 1e-3
    # The predictor pastes only what it shows.
    kept = fast["scores"] >= 0.01
    assert torch.equal(a.masks, fast["masks"][kept])


def test_other_classes_keep_the_rest(run):
    model = create_model("mask_rcnn", weights=run / "best.safetensors", classes=["a", "b"])
    missing = model.load_report.missing
    assert {name.rpartition(".")[0] for name in missing} == {
        "head.classes", "head.deltas", "mask_head.classes"
    }  # fmt: skip
    kept = read_file(run / "best.safetensors")
    for name, tensor in model.state_dict().items():
        assert name in missing or torch.equal(tensor, kept[name]), name
