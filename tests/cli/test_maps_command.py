"""eyeline predict with a segmenter: what lies in its folder."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.inference.toy_segmenter import CLASSES, bands, command_line, save_toy

from eyeline.cli import predict as predicting
from eyeline.ops.segmentations import decode_masks

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in an empty folder, in which a.safetensors is a toy and two pictures
    lie in `pictures`."""
    monkeypatch.chdir(tmp_path)
    save_toy(tmp_path / "a.safetensors")
    Path("pictures").mkdir()
    for name, size in {"x": (24, 36), "y": (30, 30)}.items():
        Image.fromarray(bands(*size)[0].permute(1, 2, 0).numpy()).save(f"pictures/{name}.png")
    return command_line(capsys)


def test_pictures_become_maps(cli: Run) -> None:
    status, out, err = cli("predict", "a.safetensors", "pictures", "--json-lines")
    assert status == 0, err
    assert err == "maps of 2 pictures: predictions\n"
    folder = Path("predictions")
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*.*")) == [
        "maps/x.png", "maps/y.png", "segments.csv", "segments.json", "x.jpg", "y.jpg",
    ]  # fmt: skip
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["source"] for line in lines] == ["pictures/x.png", "pictures/y.png"]
    coco = json.loads((folder / "segments.json").read_text())
    assert [c["name"] for c in coco["categories"]] == CLASSES
    with Image.open(folder / "maps" / "y.png") as read:
        values = np.asarray(read)
    masks = [a for a in coco["annotations"] if a["image_id"] == 2]
    assert [a["category_id"] for a in masks] == [0, 1, 2]
    decoded = decode_masks([a["segmentation"] for a in masks], 30, 30)
    assert np.array_equal(decoded.argmax(0), values) and (decoded.sum(0) == 1).all()
    rows = list(csv.DictReader((folder / "segments.csv").open()))
    assert [int(r["pixels"]) for r in rows] == [a["area"] for a in coco["annotations"]]
    assert rows[0]["class"] == "red" and rows[3]["picture"] == "pictures/y.png"
    assert [image["map"] for image in coco["images"]] == ["maps/x.png", "maps/y.png"]
    assert [row["map"] for row in rows] == ["maps/x.png"] * 3 + ["maps/y.png"] * 3
    assert [c["pixels"] for c in lines[1]["classes"]] == [a["area"] for a in masks]


def test_how_a_segmenter_looks(cli: Run) -> None:
    command = ["predict", "a.safetensors", "pictures/x.png", "--no-draw"]
    status, _, err = cli(*command, "--scales", "1,2", "--flip", "--polygons", "--out", "b")
    assert status == 0, err
    assert sorted(p.name for p in Path("b").iterdir()) == ["maps", "segments.csv", "segments.json"]
    found = json.loads(Path("b/segments.json").read_text())["annotations"]
    assert isinstance(found[0]["segmentation"], list)
    assert cli(*command, "--tile", 32, "--overlap", 0, "--no-maps", "--out", "c")[0] == 0
    assert not Path("c/maps").exists()
    assert json.loads(Path("c/segments.json").read_text())["images"][0]["map"] is None
    [row, *_] = csv.DictReader(Path("c/segments.csv").read_text().splitlines())
    assert row["map"] == ""


def test_a_large_picture_goes_from_disk_to_disk(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predicting, "SCENE", 900)
    image, truth = bands(100, 90)
    Image.fromarray(image.permute(1, 2, 0).numpy()).save("large.png")
    status, out, err = cli("predict", "a.safetensors", "large.png", "--tile", 64)
    assert status == 0, err
    assert out.startswith("90x100, ") and out.endswith(": large-classes.tif\n")
    with Image.open("large-classes.tif") as read:
        found = torch.from_numpy(np.array(read))
    assert (found == truth).float().mean() > 0.95
    assert cli("predict", "a.safetensors", "large.png", "--out", "maps.png")[0] == 0
    assert Path("maps.png").is_file()
    assert cli("predict", "a.safetensors", "large.png", "--out", "there")[0] == 0
    assert Path("there/large.tif").is_file()
    status, _, err = cli("predict", "a.safetensors", "large.png")
    assert status == 1 and "large-classes.tif exists already" in err
    # Several pictures are taken as they are.
    assert cli("predict", "a.safetensors", "pictures")[0] == 0
    assert Path("predictions/maps/x.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--threshold", "0.3"], "score_threshold is for detectors"),
        (["--tta"], "tta is for detectors"),
        (["--nms-iou", "0.3"], "nms_iou is for detectors"),
        (["--tile", "100"], "no multiple of 32"),
        (["--overlap", "0.2"], "give tile, too"),
        (["--scales", "big"], "--scales is factors such as 0.75,1,1.25, not 'big'"),
        (["--bands", "a"], "--bands is numbers from 1"),
    ],
)
def test_mistakes_are_told_in_one_line(cli: Run, arguments: list[str], words: str) -> None:
    status, _, err = cli("predict", "a.safetensors", "pictures/x.png", *arguments)
    assert status == 1 and words in err and err.count("\n") == 1
    assert sorted(p.name for p in Path().iterdir()) == ["a.safetensors", "pictures"]
