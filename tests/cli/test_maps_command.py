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

from eyeline.cli import predict_scene
from eyeline.inference import predictor
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
    monkeypatch.setattr(predict_scene, "SCENE", 900)
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
    status, _, err = cli("predict", "a.safetensors", "large.png", "--out", "map.jpg")
    assert status == 1 and "map.jpg: give it one of the endings .tif, .tiff, .png" in err
    for option in ("--json-lines", "--polygons", "--draw", "--no-maps", "--every=2"):
        status, _, err = cli("predict", "a.safetensors", "large.png", "--out", "b.tif", option)
        assert status == 1 and f"{option.partition('=')[0]} is not for such scenes" in err
    assert not Path("b.tif").exists()


def test_several_scenes_and_other_pictures(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict_scene, "SCENE", 0)
    command = ["predict", "a.safetensors", "pictures", "--out", "maps"]
    assert cli(*command)[0] == 0
    assert sorted(p.name for p in Path("maps").iterdir()) == ["x.tif", "y.tif"]
    before = Path("maps/x.tif").read_bytes()
    status, _, err = cli(*command)
    assert status == 1 and "maps exists already, with all of them; choose another --out" in err
    Path("maps/y.tif").unlink()  # it goes on with what is left
    status, out, err = cli(*command)
    assert status == 0 and err == "maps/x.tif: exists already and stays as it is\n"
    assert out.startswith("30x30, ") and Path("maps/x.tif").read_bytes() == before

    monkeypatch.setattr(predict_scene, "SCENE", 880)  # y, of 900 pixels, is one, and x is none
    Path("more").mkdir()
    Path("more/y.png").write_bytes(Path("pictures/y.png").read_bytes())
    listed = ["more/y.png", *(f"pictures/{name}.png" for name in "xy")]
    Path("list.txt").write_text("\n".join(listed))
    assert cli("predict", "a.safetensors", "list.txt", "--no-draw")[0] == 0
    assert sorted(str(p.relative_to("predictions")) for p in Path("predictions").rglob("*.*")) == [
        "maps/x.png", "segments.csv", "segments.json", "y-2.tif", "y.tif",
    ]  # fmt: skip
    status, _, err = cli("predict", "a.safetensors", "list.txt")
    assert status == 1 and "predictions exists already; choose another --out" in err


def test_a_model_that_resizes_sees_a_scene_as_a_whole(
    cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_toy("sized.safetensors", min_size=16, max_size=64)
    how = ["predict", "sized.safetensors", "pictures/x.png", "--no-draw", "--flip"]
    assert cli(*how)[0] == 0
    monkeypatch.setattr(predict_scene, "SCENE", 0)
    assert cli("predict", "sized.safetensors", "pictures/x.png", "--flip")[0] == 0
    whole, scene = (np.array(Image.open(p)) for p in ("predictions/maps/x.png", "x-classes.tif"))
    assert np.array_equal(whole, scene)


def test_tiles_with_a_margin_give_what_the_whole_does(
    cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (100, 150, 3), np.uint8)
    Image.fromarray(noise).save("noise.png")
    command, found = ["predict", "a.safetensors", "noise.png"], {}
    margin = ["--tile", 64, "--overlap", 0.5, "--margin", 16]
    for name, scene, options in (
        ("whole", 2**20, []), ("tiles", 2**20, margin), ("scene", 0, [*margin, "--batch-size", 2])
    ):  # fmt: skip
        monkeypatch.setattr(predict_scene, "SCENE", scene)
        status, _, err = cli(*command, *options, "--out", name)
        assert status == 0, err
        path = f"{name}/noise.tif" if name == "scene" else f"{name}/maps/noise.png"
        found[name] = np.array(Image.open(path))
    assert np.array_equal(found["whole"], found["tiles"])
    assert np.array_equal(found["whole"], found["scene"])


def test_large_pictures_are_cut_and_it_is_said(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor, "LARGE", 880)
    status, _, err = cli("predict", "a.safetensors", "pictures", "--no-draw")
    assert status == 0 and err.startswith("pictures/y.png: of more than ") and err.count("\n") == 1
    assert "so it is seen in tiles of 512" in err
    for option in (["--tile", 64], ["--tile", 64, "--scales", 2]):
        assert cli("predict", "a.safetensors", "pictures", "--no-draw", *option)[2] == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--threshold", "0.3"], "score_threshold is for detectors"),
        (["--tta"], "tta is for detectors"),
        (["--nms-iou", "0.3"], "nms_iou is for detectors"),
        (["--tile", "100"], "no multiple of 32"),
        (["--overlap", "0.2"], "give tile, too"),
        (["--margin", "8"], "give tile, too"),
        (["--tile", "64", "--margin", "33"], "margin is from 0 to half the overlap"),
        (["--scales", "big"], "--scales is factors such as 0.75,1,1.25, not 'big'"),
        (["--bands", "a"], "--bands is numbers from 1"),
    ],
)
def test_mistakes_are_told_in_one_line(cli: Run, arguments: list[str], words: str) -> None:
    status, _, err = cli("predict", "a.safetensors", "pictures/x.png", *arguments)
    assert status == 1 and words in err and err.count("\n") == 1
    assert sorted(p.name for p in Path().iterdir()) == ["a.safetensors", "pictures"]
