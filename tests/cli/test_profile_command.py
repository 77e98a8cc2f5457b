"""eyeline profile: its table, its files, and one line for every mistake."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import eyeline
from eyeline.checkpoints import save_weights
from eyeline.cli import main
from eyeline.inspection.limits import Limits, machine_name

Run = Callable[..., tuple[int, str, str]]
OPTIONS = {"backbone": "resnet18", "fpn_channels": 16}
SETTINGS = [f"model.{key}={value}" for key, value in OPTIONS.items()]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `eyeline profile` in an empty folder, with limits that need not be measured."""
    monkeypatch.chdir(tmp_path)
    name = machine_name(torch.device("cpu"))
    Limits(name, 1, 1e11, 2e11, None, 4e11, 1e10).save("limits.json")

    def run(*arguments: str | int | Path) -> tuple[int, str, str]:
        shared = ["--limits", "limits.json", "--device", "cpu", "--rounds", "1"]
        if "--threads" not in arguments:
            shared += ["--threads", "1"]
        status = main.run(["profile", *map(str, arguments), *shared])
        return status, *capsys.readouterr()

    return run


def test_a_model_by_name(cli: Run, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    status, out, err = cli(
        "faster_rcnn", *SETTINGS, "--size", "64x96", "--batch", 2, "--depth", 2,
        "--json", "p.json", "--markdown", "p.md",
    )  # fmt: skip
    assert status == 0, err
    assert torch.get_num_threads() == threads
    title = "faster_rcnn model.backbone=resnet18 model.fpn_channels=16, inference, float32, "
    assert title + "2 pictures of 64x96" in " ".join(out.split())
    for name in ("backbone", "layer1", "head", "fc1", "sum"):
        assert f" {name} " in out, name
    assert "100 GFLOP/s float32, 200 bf16, none fp16, 400 GOP/s int8, 10.0 GB/s" in out
    told = json.loads((tmp_path / "p.json").read_text())
    assert told["subject"] == {
        "model": " ".join(["faster_rcnn", *SETTINGS]), "mode": "inference",
        "precision": "float32", "batch": 2, "size": [64, 96], "optimized": True,
    }  # fmt: skip
    names = [stage["name"] for stage in told["sum"]["parts"]]
    assert names[:3] == ["prepare", "backbone", "fpn"] and names[-1] == "between the stages"
    seconds = sum(stage["seconds"] for stage in told["sum"]["parts"])
    assert seconds == pytest.approx(told["sum"]["seconds"]) and len(told["whole"]) == 1
    assert "| backbone |" in (tmp_path / "p.md").read_text()


def test_a_step_of_training(cli: Run) -> None:
    status, out, err = cli(
        "retinanet", *SETTINGS, "optimizer.name=sgd", "--size", 64, "--training",
        "--precision", "bf16",
    )  # fmt: skip
    assert status == 0, err
    assert "training step, bf16, 1 picture of 64x64" in " ".join(out.split())
    for name in ("forward", "backward", "class_head", "optimizer step"):
        assert f" {name} " in out, name


def test_weights(cli: Run, tmp_path: Path) -> None:
    model = eyeline.create_model("retinanet", classes=["disc"], size=64, **OPTIONS)
    save_weights(model, tmp_path / "best.safetensors")
    status, out, err = cli("best.safetensors", "--as-is")
    assert status == 0, err
    assert "best.safetensors, inference, float32, as it is, 1 picture of 64x85" in " ".join(
        out.split()
    )
    status, _, err = cli("best.safetensors", "model.backbone=resnet18")
    assert status == 1 and "best.safetensors is trained; model.backbone=resnet18 would" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fast_rcnn"], "no model is called 'fast_rcnn'; did you mean faster_rcnn"),
        (["resnet18"], "resnet18 is for classification; profile takes a detector"),
        (["runs/none"], "runs/none"),
        (["retinanet", "--size", "3x"], "--size is height x width in pixels"),
        (["retinanet", "--size", "20x300"], "from 32, such as 800x1066, not '20x300'"),
        (["retinanet", *SETTINGS, "--size", "64", "--precision", "int3"], "no precision 'int3'"),
        (["retinanet", "--training", "--precision", "int3"], "precision: input should be"),
        (["retinanet", *SETTINGS, "--as-is", "--precision", "bf16"], "computes in float32"),
        (["retinanet", *SETTINGS, "--as-is", "--training"], "--as-is is for inference"),
        (["retinanet", "--training", "checkpoint_activations=true"], "set it to false"),
        (["retinanet", "model.backbon=resnet18"], "unknown model option 'backbon'"),
        (["retinanet", *SETTINGS, "--json", "limits.json"], "limits.json exists already"),
        (["retinanet", *SETTINGS, "--threads", "3"], "with 1 threads, this is"),
        (["empty.yaml"], "a recipe needs model.name"),
    ],
)
def test_mistakes(cli: Run, arguments: list[str], message: str) -> None:
    Path("empty.yaml").write_text("")
    status, out, err = cli(*arguments)
    assert status == 1 and out == ""
    assert err.startswith("error: ") and err.count("\n") == 1
    assert message in err
