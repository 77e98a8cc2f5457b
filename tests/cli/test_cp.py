"""A copied paper file goes through every command; its weights alone say what they lack."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import eyeline
from eyeline.cli import main
from eyeline.cli.cp import find_source
from eyeline.errors import EyelineError
from eyeline.inference.predictor import load_model

SMALL = ["model.backbone=resnet18", "model.fpn_channels=16", "model.tower_depth=1", "model.size=64"]
MARK = "MINE = True  # the user's edit\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        (tmp_path / "data" / split).mkdir(parents=True)
        (tmp_path / "data" / "annotations").mkdir(exist_ok=True)
        array = np.zeros((48, 64, 3), np.uint8)
        array[10:30, 5:25] = 255
        Image.fromarray(array).save(tmp_path / "data" / split / "0.png")
        content = {
            "images": [{"id": 1, "file_name": "0.png", "width": 64, "height": 48}],
            "annotations": [
                {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 10, 20, 20], "area": 400}
            ],
            "categories": [{"id": 1, "name": "square"}],
        }
        path = tmp_path / "data" / "annotations" / f"instances_{split}.json"
        path.write_text(json.dumps(content))
    return tmp_path / "data"


def test_a_copy_through_every_command(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.run(["cp", "retinanet", "mine"]) == 0
    copy = Path("mine", "retinanet.py")
    assert copy.read_bytes() == find_source("retinanet").read_bytes()
    assert main.run(["cp", "retinanet", "mine"]) == 1
    assert "exists already" in capsys.readouterr().err

    text = copy.read_text() + MARK
    copy.write_text(text)
    options = ["data.workers=0", "log.tensorboard=false", "epochs=1", *SMALL]
    train = ["train", str(copy), "--data", str(data), "--out", "run", *options]
    assert main.run(train) == 0, capsys.readouterr().err
    assert Path("run", "model.py").read_text() == text

    copy.write_text("raise RuntimeError('never run again')\n")  # the run needs it no more
    assert main.run(["train", "--resume", "run", "epochs=2"]) == 0, capsys.readouterr().err
    assert main.run(["eval", "run"]) == 0, capsys.readouterr().err
    assert main.run(["predict", "run", str(data / "val")]) == 0, capsys.readouterr().err
    model = load_model("run")
    assert model.name == "retinanet" and model.source == text
    module = type(model).__module__
    assert module.startswith("eyeline_own_model") and not isinstance(
        model, type(eyeline.create_model("retinanet", num_classes=1, backbone="resnet18"))
    )

    weights = str(Path("run", "last.safetensors"))
    capsys.readouterr()
    assert main.run(["predict", weights, str(data / "val"), "--out", "other"]) == 1
    told = capsys.readouterr().err
    assert "of a model file of your own; give its run folder" in told and told.count("\n") == 1
    with pytest.raises(EyelineError, match="a model file of your own"):
        eyeline.create_model("retinanet", weights=weights)
    again = eyeline.create_model(Path("run", "model.py"), weights=weights)
    assert again.classes == ["square"]
    Path("run", "model.py").unlink()
    with pytest.raises(EyelineError, match=r"no model file at .*run/model\.py"):
        load_model("run")


def test_recipes_are_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["cp", "bccd_retinanet.yaml", str(tmp_path)]) == 0
    copied = (tmp_path / "bccd_retinanet.yaml").read_text()
    assert copied == (Path(__file__).parents[2] / "recipes" / "bccd_retinanet.yaml").read_text()
    assert f"eyeline train {tmp_path / 'bccd_retinanet.yaml'}" in capsys.readouterr().out


def test_unknown_names_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["cp", "retinanett", str(tmp_path / "new")]) == 1
    assert "did you mean retinanet" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
