"""eyeline trace: text, page and JSON, of whatever names a model, and one line for every mistake."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

import eyeline
from eyeline.checkpoints import save_weights
from eyeline.cli import main

Run = Callable[..., tuple[int, str, str]]
OPTIONS = {"backbone": "resnet18", "fpn_channels": 16}
SETTINGS = [f"model.{key}={value}" for key, value in OPTIONS.items()]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `eyeline trace` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | int | Path) -> tuple[int, str, str]:
        shared = ["--device", "cpu", "--rounds", "1"]
        status = main.run(["trace", *map(str, arguments), *shared])
        return status, *capsys.readouterr()

    return run


def test_a_model_by_name(cli: Run) -> None:
    status, out, err = cli("faster_rcnn", *SETTINGS, "--size", "64x96")
    assert status == 0, err
    assert out.startswith("faster_rcnn: a picture of 3×64×96 on cpu.")
    for name in ("prepare", "compute", "backbone", "head", "◇ proposals, sec. 3.1", "finish"):
        assert f"  {name} " in out, name
    assert max(map(len, out.splitlines())) <= 100
    status, shallow, _ = cli("faster_rcnn", *SETTINGS, "--size", "64x96", "--depth", 1)
    assert status == 0 and " backbone " not in shallow and "  compute " in shallow


def test_a_classifier(cli: Run) -> None:
    status, out, err = cli("resnet18", "--size", 64, "--depth", 2)
    assert status == 0, err
    assert "1×3×64×64" in out and "1×1000" in out and "11.7 M" in out


def test_forms_and_files(cli: Run, tmp_path: Path) -> None:
    model = ["resnet18", "--size", 32]
    status, out, err = cli(*model, "--format", "json")
    assert status == 0, err
    assert json.loads(out)["root"]["name"] == "resnet18"
    for _ in range(2):
        assert cli(*model, "--format", "html")[0] == 0
    assert "<!DOCTYPE html>" in (tmp_path / "trace-2.html").read_text()
    status, out, _ = cli(*model, "-o", "new/t.html")
    assert status == 0 and out == "trace: new/t.html\n"
    assert "features, sec. 3.3" in (tmp_path / "new" / "t.html").read_text()
    for name in ("t.json", "t.txt"):
        assert cli(*model, "-o", name)[0] == 0
    assert json.loads((tmp_path / "t.json").read_text())["schema"] == 1
    assert (tmp_path / "t.txt").read_text().startswith("resnet18: a picture of 3×32×32")
    for name in ("same.htm", "of.another"):
        assert cli(*model, "--format", "html", "-o", name)[0] == 0
        assert (tmp_path / name).read_text().startswith("<!DOCTYPE html>")
    status, _, err = cli(*model, "-o", "t.txt")
    assert status == 1 and err == "error: t.txt exists already; choose another --out\n"


def test_weights_own_file_and_picture(cli: Run, tmp_path: Path) -> None:
    model = eyeline.create_model("retinanet", classes=["disc"], size=64, **OPTIONS)
    save_weights(model, tmp_path / "best.safetensors")
    Image.new("RGB", (90, 60), "teal").save("p.png")
    status, out, err = cli("best.safetensors", "--image", "p.png")
    assert status == 0, err
    assert "3×60×90" in out and "1×3×64×96" in out
    source = Path(eyeline.__file__).parent / "detectors" / "retinanet.py"
    code = source.read_text().replace("P3 to P7", "of mine")
    (tmp_path / "mine.py").write_text(code)
    line = 1 + next(i for i, text in enumerate(code.splitlines()) if 'note("levels of mine' in text)
    status, out, err = cli("mine.py", *SETTINGS, "--size", 64)
    assert status == 0, err
    assert "◇ levels of mine, sec. 4" in out and f"mine.py:{line}" in out
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fast_rcnn"], "no model is called 'fast_rcnn'; did you mean faster_rcnn"),
        (["runs/none"], "runs/none"),
        (["none.py"], "no model file at"),
        (["retinanet", "--size", "3x"], "--size is height x width in pixels"),
        (["retinanet", *SETTINGS, "--image", "none.png"], "none.png: no such picture"),
        (["retinanet", *SETTINGS, "--image", "text.png"], "text.png: not a picture"),
        (["retinanet", "model.backbon=resnet18"], "unknown model option 'backbon'"),
        (["resnet18", "-o", "text.png"], "text.png exists already; choose another --out"),
        (["resnet18", "-o", "folder"], "folder is a folder; give --out a file"),
        (["resnet18", "--format", "html", "-o", "x.json"], "x.json ends as json does, not html"),
        (["resnet18", "--format", "json", "-o", "x.txt"], "x.txt ends as text does, not json"),
    ],
)
def test_mistakes(cli: Run, arguments: list[str], message: str) -> None:
    Path("text.png").write_text("no picture")
    Path("folder").mkdir()
    status, out, err = cli(*arguments)
    assert status == 1 and out == ""
    assert err.startswith("error: ") and err.count("\n") == 1
    assert message in err
