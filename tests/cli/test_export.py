"""eyeline export: what it prints and what it refuses; docs/export.md runs it as it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import eyeline
from eyeline.checkpoints.eyeline import save_weights
from eyeline.cli import main
from eyeline.export import files
from eyeline.export.files import Format
from eyeline.export.graph import Graph


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    model = eyeline.create_model(
        "retinanet", classes=["a", "b"], backbone="resnet18", fpn_channels=16, tower_depth=1,
        size=64, score_threshold=0.3,
    )  # fmt: skip
    nn.init.normal_(model.class_head.output.weight, std=0.3)  # so that it detects something
    path = tmp_path / "weights.safetensors"
    save_weights(model, path)
    return path


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The models that are written, in a format that is run as it stands."""
    kept: list[Any] = []

    def write(model: Any, path: Path, facts: Any, size: Any) -> None:
        path.write_text(facts["classes"])
        kept.append(model)

    form = Format(".pt2", (), write, lambda path: Graph(kept[-1]))
    monkeypatch.setitem(files.FORMATS, "torch", form)
    return kept


def test_the_file_lies_where_it_is_told(
    weights: Path, exported: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", str(weights), "--format", "torch"]
    assert main.run([*command, "--nms-iou", "0.7", "--class-agnostic"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("model.pt2; beside the model on a made picture, ")
    assert "boxes within" in out and "scores within" in out
    assert Path("model.pt2").read_text() == '["a", "b"]'
    assert exported[0].config.nms_iou == 0.7 and exported[0].config.class_agnostic_nms

    assert main.run(command) == 1
    assert "model.pt2 exists already" in capsys.readouterr().err
    assert main.run([*command, "--force"]) == 0
    assert main.run([*command, "--out", "there/it.pt2"]) == 0
    assert Path("there", "it.pt2").is_file()


def test_nothing_found_is_said(
    weights: Path, exported: list[Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model = eyeline.create_model("retinanet", weights=weights)
    nn.init.zeros_(model.class_head.output.weight)
    save_weights(model, tmp_path / "blind.safetensors")
    assert main.run(["export", "blind.safetensors", "--format", "torch"]) == 0
    out = capsys.readouterr().out
    assert "0 detections" in out and "--picture PATH names one with objects" in out
    assert torch.equal(exported[0].class_head.output.weight, torch.zeros(18, 16, 3, 3))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--format", "coreml"], "no format is called 'coreml'; there are: onnx, torch"),
        (["--format", "torch", "--nms", "soft_linear"], "no operator for nms 'soft_linear'"),
        (["--format", "torch", "--picture", "no.jpg"], "no.jpg: no such picture"),
    ],
)
def test_mistakes_are_told_in_one_line(
    weights: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main.run(["export", str(weights), *arguments]) == 1
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1
    assert sorted(path.name for path in weights.parent.iterdir()) == [weights.name]
