"""The x-ray of a segmenter: what it says of each pixel, its stages, its page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from tests.inference.toy_segmenter import CLASSES, bands, registered, save_toy, toy, write_data
from torch import nn

from eyeline.cli import main
from eyeline.errors import EyelineError
from eyeline.inspection import explain, xray, xray_map

Run = Callable[..., tuple[int, str, str]]


def test_probabilities_entropy_and_errors() -> None:
    model, (image, truth) = toy(), bands()
    truth[:2], truth[5, :12] = 255, 1
    found = xray_map(model, image, truth)
    with torch.no_grad():
        logits = model(image[None])[0]
    assert torch.equal(found.logits, logits)
    p = found.probabilities.double()
    slow = -(p * p.clamp(min=1e-30).log()).sum(0) / torch.tensor(3.0).log()
    torch.testing.assert_close(found.entropy.double(), slow, rtol=1e-4, atol=1e-5)
    assert found.wrong is not None and found.wrong[5, :10].all() and not found.wrong[:2].any()
    assert found.losses is not None
    assert found.losses["cross_entropy"] == pytest.approx(
        float(model(image[None], truth[None])["cross_entropy"].detach())
    )
    assert [(name, tuple(stage.shape)) for name, stage in found.stages] == [
        ("features", (8, 12, 18))
    ]


def test_all_classes_alike_is_entropy_one() -> None:
    model = toy()
    nn.init.zeros_(model.classifier.weight)
    nn.init.zeros_(model.classifier.bias)
    found = xray_map(model, bands()[0])
    torch.testing.assert_close(found.entropy, torch.ones(24, 36))
    assert found.wrong is None and found.losses is None


def test_a_model_that_names_nothing_shows_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = toy()
    monkeypatch.setattr(type(model), "maps", lambda self, x: self.classifier(self.conv(x)))
    found = xray_map(model, bands()[0])
    assert [name for name, _ in found.stages] == ["conv", "classifier"]
    assert not any(module._forward_hooks for module in model.modules())


def test_what_cannot_be_shown() -> None:
    model, (image, truth) = toy(), bands()
    with pytest.raises(EyelineError, match="Linear is no segmenter"):
        xray_map(nn.Linear(2, 2), image)
    with pytest.raises(EyelineError, match="ToySegmenter is no detector; xray_map shows"):
        xray(model, image)
    with pytest.raises(EyelineError, match=r"the map is \(3, 3\), the picture \(24, 36\)"):
        xray_map(model, image, truth[:3, :3])
    with pytest.raises(EyelineError, match="class 9"):
        xray_map(model, image, torch.full((24, 36), 9))
    nn.init.constant_(model.classifier.bias, float("nan"))
    with pytest.raises(EyelineError, match="not finite"):
        xray_map(model, image)


def test_the_page_holds_the_numbers() -> None:
    image, truth = bands()
    page = explain(xray_map(toy(), image, truth), "a <run>", "x.png", None, "A toy.")
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])  # type: ignore[index]
    assert data["names"] == CLASSES and (data["width"], data["height"]) == (36, 24)
    assert len(data["probabilities"]) == 3 and data["truth"].startswith("data:image/png")
    assert "a &lt;run&gt;" in page and "features" in page and "loss, cross_entropy" in page
    assert page.count('class="layer"') == 5
    # Of many classes those that are likely.
    many = toy(False, classes=[f"c{i}" for i in range(40)])
    page = explain(xray_map(many, image), "b", "x.png")
    assert "The other 16 classes are less likely" in page and page.count('class="layer"') == 3


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)
    save_toy(tmp_path / "a.safetensors")
    write_data(tmp_path / "data")

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with registered():
            status = main.run([*arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return run


def test_the_command(cli: Run) -> None:
    Path("data/val/v.png").write_bytes(Path("data/val/0.png").read_bytes())
    Path("data/valannot/v.png").write_bytes(Path("data/valannot/0.png").read_bytes())
    status, out, err = cli("explain", "a.safetensors", "data/val/v.png", "--target", "data")
    assert (status, out) == (0, "v.html\n"), err
    assert "Annotation: data." in Path("v.html").read_text()
    mask = ["--target", "data/valannot/1.png", "--out", "b.html"]
    assert cli("explain", "a.safetensors", "data/val/1.png", *mask)[0] == 0
    assert cli("explain", "a.safetensors", "data/val/1.png")[0] == 0
    assert "No annotation was given" in Path("1.html").read_text()
    Image.new("L", (36, 24), 7).save("wrong.png")
    Path("2.png").write_bytes(Path("data/val/2.png").read_bytes())  # which of the splits'?
    for target, words in (("data", "2 pictures are named 2.png"), ("wrong.png", "wrong.png")):
        status, _, err = cli(
            "explain", "a.safetensors", "2.png", "--target", target, "--out", "c.html"
        )
        assert status == 1 and words in err and err.count("\n") == 1
