"""Pictures with any name, from the command line to the files that are written."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from eyeline.checkpoints import save_weights
from eyeline.errors import EyelineError
from eyeline.inference import Predictor
from eyeline.inference.sources import find, stem_of
from eyeline.registry import create_model

NAMES = ("a b.png", "고양이.png", "🐈.png", "a#b.png", "what?.png", "a%20b.png", "[a]*.png",
         "http:a.png", "가" * 83 + ".png", "x" * 251 + ".png")  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = create_model(
        "retinanet", num_classes=1, backbone="resnet18", size=32, fpn_channels=16, tower_depth=1
    )
    path = tmp_path_factory.mktemp("weights") / "모델 #1?.safetensors"
    save_weights(model, path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path
    while len(str(folder)) < 300:
        folder = folder / "길고 #긴? 폴더"
    folder.mkdir(parents=True)
    for name in NAMES:
        Image.new("RGB", (20, 10), "red").save(folder / name)
    return folder


def test_predict_writes_what_it_reads(weights: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out #1?"
    command = [sys.executable, "-m", "eyeline", "predict", weights, folder, "--out", out]
    done = subprocess.run([*command, "--threshold", "0"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    written = json.loads((out / "detections.json").read_text())
    paths = [str(folder / name) for name in sorted(NAMES)]
    assert [image["file_name"] for image in written["images"]] == paths
    with (out / "detections.csv").open(encoding="utf-8", newline="") as file:
        assert {row["picture"] for row in csv.DictReader(file)} == set(paths)
    drawn = list(out.glob("*.jpg"))
    assert len(drawn) == len(NAMES) and all(Image.open(path).size for path in drawn)


def test_one_by_one(weights: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor(weights)
    monkeypatch.chdir(folder)
    for name in NAMES:
        for source in (name, folder / name):
            result = predictor(source)
            assert result.path == str(source) and result.image.shape == (3, 10, 20)  # type: ignore[union-attr]
    (folder / "list #1.txt").write_text("\n".join(NAMES))
    assert len(predictor("list #1.txt")) == len(NAMES)
    torch.testing.assert_close(result.image[:, 0, 0].tolist(), [255, 0, 0])  # type: ignore[union-attr]


def test_names_that_no_system_takes(weights: Path, tmp_path: Path) -> None:
    predictor = Predictor(weights)
    for name in ("x" * 300 + ".png", "y/" * 3000 + "a.png", "a\0b.png"):
        with pytest.raises(EyelineError, match=r"cannot read the picture: .*(too long|null)") as e:
            predictor(str(tmp_path / name))
        assert "\n" not in str(e.value)


def test_videos_with_a_colon(shared_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    for name in ("a:b.mp4", "what?#.mp4", "한국.mp4", "http:x.mp4"):
        (tmp_path / name).symlink_to(shared_data / "video" / "street.mp4")
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path)
            [video], single = find(name)
            assert not single and next(video.frames()).image.shape[0] == 3  # type: ignore[union-attr]


def test_stems_are_short_and_whole() -> None:
    assert stem_of("가" * 83 + ".png") == "가" * 66  # 198 bytes: no letter is cut in two
    assert stem_of("a#b?.png") == "a#b?"
