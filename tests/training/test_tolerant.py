"""Data that is partly broken: refused, or trained on without that part, and nothing is silent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from eyeline.data.checking.usable import open_checked
from eyeline.errors import EyelineError
from eyeline.training import load_recipe, train_recipe

SMALL = {"name": "retinanet", "backbone": "resnet18", "fpn_channels": 16, "tower_depth": 1}
PICTURES, PARTS = 8, 3  # of the training split; objects of each picture


def write(folder: Path, split: str, count: int, ids: dict[str, int]) -> None:
    """A COCO split; the classes have the numbers `ids`."""
    (folder / split).mkdir(parents=True)
    (folder / "annotations").mkdir(exist_ok=True)
    content: dict[str, list[dict[str, Any]]] = {
        "images": [], "annotations": [],
        "categories": [{"id": k, "name": name} for name, k in ids.items()],
    }  # fmt: skip
    names = [name for name in ids if name != "ring"]
    for i in range(count):
        image = Image.effect_noise((64, 48), 90).convert("RGB")
        image.paste((255, 0, 0), (8, 8, 28, 28))
        image.save(folder / split / f"{i}.jpg")
        size = {"width": 64, "height": 48}
        content["images"].append({"id": i + 1, "file_name": f"{i}.jpg", **size})
        for k in range(PARTS):
            content["annotations"].append(
                {
                    "id": i * PARTS + k + 1, "image_id": i + 1, "bbox": [8 + k, 8, 20, 20],
                    "category_id": ids[names[k % len(names)]],
                }
            )  # fmt: skip
    (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


def half_broken(folder: Path) -> Path:
    """3 pictures cut short, 2 bad boxes and an unknown class on others."""
    write(folder, "train", PICTURES, {"disc": 3, "square": 7})
    write(folder, "val", 3, {"disc": 3, "square": 7, "ring": 9})
    for i in (0, 1):
        path = folder / "train" / f"{i}.jpg"
        path.write_bytes(path.read_bytes()[:-500])
    path = folder / "val" / "2.jpg"
    path.write_bytes(path.read_bytes()[:-500])
    for split, index, key, value in (
        ("train", 2 * PARTS, "bbox", [10, 10, 0, 5]),
        ("train", 4 * PARTS + 1, "bbox", [60, 10, 20, 5]),
        ("val", 1, "category_id", 9),
    ):
        file = folder / "annotations" / f"instances_{split}.json"
        content = json.loads(file.read_text())
        content["annotations"][index][key] = value
        file.write_text(json.dumps(content))
    return folder


def recipe(folder: Path, out: Path, **data: Any) -> Any:
    return load_recipe(
        {
            "model": {**SMALL, "size": 64}, "epochs": 1, "batch_size": 2, "out": str(out),
            "data": {"path": str(folder), "workers": 0, **data}, "log": {"tensorboard": False},
        }
    )  # fmt: skip


def test_refused_and_each_case_named(tmp_path: Path) -> None:
    folder = half_broken(tmp_path / "d")
    with pytest.raises(EyelineError) as error:
        train_recipe(recipe(folder, tmp_path / "run"))
    told = str(error.value)
    assert told.startswith(f"{folder}: 6 faults in the data: ") and "--tolerant" in told
    for place in ("train/0.jpg", "train/1.jpg", "val/2.jpg", "annotations[6]", "annotations[13]"):
        assert place in told
    assert "the class 'ring' is not one of disc, square" in told
    assert f"`eyeline data check {folder} --all`" in told and "\n" not in told
    assert not (tmp_path / "run").exists()


def test_trained_on_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = half_broken(tmp_path / "d")
    run = train_recipe(recipe(folder, tmp_path / "run", tolerant=True))
    out = capsys.readouterr().out
    assert (
        "left out of the data: 1 (classes that are not known); 3 (pictures that are not there, or "
        "cannot be read); 2 (boxes outside their picture or without area)\n" in out
    )
    left_out = json.loads((run.folder / "left_out.json").read_text())
    assert left_out["counts"] == {"class": 1, "picture": 3, "box": 2}
    assert len(left_out["left_out"]) == 6
    assert {"kind", "where", "what"} == set(left_out["left_out"][0])
    assert run.metrics["AP"] is not None

    train, val = open_checked(folder, ["train", "val"], tolerant=True)
    assert len(train) == PICTURES - 2 and len(val) == 2
    counts = [sum(len(r.boxes) for r in data.annotations.records) for data in (train, val)]
    assert counts == [(PICTURES - 2) * PARTS - 2, 2 * PARTS - 1]
    assert train.classes == val.classes == ["disc", "square"]
    assert [len(train[i][1]["boxes"]) for i in range(len(train))] == [2, 3, 2, 3, 3, 3]


def test_sound_data_leave_nothing_out(tmp_path: Path) -> None:
    write(tmp_path / "d", "train", 2, {"disc": 3, "square": 7})
    run = train_recipe(recipe(tmp_path / "d", tmp_path / "run", tolerant=True, val=None))
    assert (run.folder / "recipe.yaml").is_file()
    assert not (run.folder / "left_out.json").exists()


def test_bad_boxes_alone(tmp_path: Path) -> None:
    """data.bad_boxes=drop is to be tolerant of boxes, and of nothing else."""
    folder = half_broken(tmp_path / "d")
    with pytest.raises(EyelineError, match=r"4 faults in the data: .*ring") as error:
        open_checked(folder, ["train", "val"], bad_boxes="drop")
    assert "annotations[6]" not in str(error.value)
    for i in (0, 1):
        Image.new("RGB", (64, 48)).save(folder / "train" / f"{i}.jpg")
    [train] = open_checked(folder, ["train"], bad_boxes="drop")
    assert len(train) == PICTURES and [fault.kind for fault in train.left_out] == ["box", "box"]


def test_warnings_are_told(tmp_path: Path) -> None:
    write(tmp_path, "train", 2, {"disc": 1, "Disc ": 2})
    lines: list[str] = []
    [train] = open_checked(tmp_path, ["train"], say=lines.append)
    assert train.left_out == [] and len(lines) == 1
    assert lines[0].startswith("1 warning: ") and "is almost 'disc' (4)" in lines[0]
    assert lines[0].endswith(f"; see `eyeline data check {tmp_path} --all`")


def test_many_faults_are_counted(tmp_path: Path) -> None:
    write(tmp_path, "train", 14, {"disc": 1})
    for i in range(14):
        (tmp_path / "train" / f"{i}.jpg").write_bytes(b"no")
    with pytest.raises(EyelineError, match=r"14 faults .*; and 4 more; mend them"):
        open_checked(tmp_path, ["train"])
    with pytest.raises(EyelineError, match=r"nothing is left of train: .*0.jpg"):
        open_checked(tmp_path, ["train"], tolerant=True)
    (tmp_path / "annotations" / "instances_val.json").write_text('{"images": ')
    with pytest.raises(EyelineError, match=r"nothing is left of train: .*instances_val.json:1:12"):
        open_checked(tmp_path, ["train", "val"], tolerant=True)


def damaged_within(path: Path) -> None:
    """The header is sound, the rest is not; a BMP has no mark at its end."""
    Image.effect_noise((64, 48), 90).convert("RGB").save(path, "BMP")
    path.write_bytes(path.read_bytes()[:-99])


def test_pictures_damaged_within(tmp_path: Path) -> None:
    """Training stops at one, and names it and the way out; tolerant training never meets it."""
    folder = tmp_path / "d"
    write(folder, "train", 4, {"disc": 3})
    damaged_within(folder / "train" / "2.jpg")
    with pytest.raises(EyelineError, match=r"2.jpg: cannot read .* --tolerant leaves them out"):
        train_recipe(recipe(folder, tmp_path / "run", val=None))
    run = train_recipe(recipe(folder, tmp_path / "run-2", val=None, tolerant=True))
    assert json.loads((run.folder / "left_out.json").read_text())["counts"] == {"picture": 1}


def test_labels_travel_by_name(tmp_path: Path) -> None:
    """Training fixes them; data that number and order their classes otherwise are mapped."""
    write(tmp_path / "d", "train", 3, {"disc": 3, "square": 7})
    write(tmp_path / "d", "val", 3, {"square": 1, "disc": 2})
    write(tmp_path / "e", "test", 2, {"square": 2, "zebra": 1, "disc": 9})
    file = tmp_path / "e" / "annotations" / "instances_test.json"
    content = json.loads(file.read_text())
    for k, annotation in enumerate(content["annotations"]):
        annotation["category_id"] = (9, 2, 2)[k % 3]
    file.write_text(json.dumps(content))
    run = train_recipe(recipe(tmp_path / "d", tmp_path / "run"))

    import eyeline

    model = eyeline.create_model("retinanet", weights=run.folder / "best.safetensors")
    assert list(model.classes) == ["disc", "square"]
    train, val = open_checked(tmp_path / "d", ["train", "val"], classes=model.classes)
    assert train[0][1]["labels"].tolist() == [0, 1, 0]
    assert val[0][1]["labels"].tolist() == [1, 0, 1]  # its first object is a square
    [other] = open_checked(tmp_path / "e", ["test"], classes=model.classes)
    assert other[0][1]["labels"].tolist() == [0, 1, 1]
