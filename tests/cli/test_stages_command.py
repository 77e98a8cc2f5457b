"""eyeline stages: from a run folder to its page, table and picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from eyeline.checkpoints import save_weights
from eyeline.cli.main import run
from eyeline.registry import create_model

DIGITS = [str(k) for k in range(10)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits, and two runs with weights alone."""
    folder = tmp_path_factory.mktemp("stages")
    assert run(["data", "sample", str(folder / "digits"), "--train", "2", "--val", "2"]) == 0
    few = {"proposals": [60, 40], "proposals_before_nms": [60, 40], "head_width": 32}
    for name, options in (("cascade_rcnn", few), ("retinanet", {})):
        torch.manual_seed(0)
        model = create_model(
            name, classes=DIGITS, backbone="resnet18", size=64, fpn_channels=32, **options
        )
        (folder / name).mkdir()
        save_weights(model, folder / name / "best.safetensors")
    return folder


def test_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cascade = folder / "cascade_rcnn"
    assert run(["stages", str(cascade), "--data", str(folder / "digits")]) == 0
    out = capsys.readouterr().out
    page = cascade / "stages-val" / "stages.html"
    assert f"page: {page}" in out.replace("\n", "") and "u = 0.7 own" in out
    told = json.loads((page.parent / "stages.json").read_text())
    assert told["pictures"] == 2 and [s["stage"] for s in told["stages"]] == [1, 2, 3]
    assert "Stages of cascade_rcnn on digits val" in page.read_text()
    assert (page.parent / "iou.svg").is_file()


def test_of_another_model_in_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(folder / "none")  # told before data are opened
    assert run(["stages", str(folder / "retinanet"), "--data", data]) == 1
    told = capsys.readouterr().err
    assert "retinanet has no stages to look behind" in told and told.count("\n") == 1
    assert not (folder / "retinanet" / "stages-val").exists()
    assert run(["stages", str(folder / "cascade_rcnn")]) == 1
    assert "which pictures?" in capsys.readouterr().err
