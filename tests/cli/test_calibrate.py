"""eyeline calibrate, and what --precision int8 makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eyeline.checkpoints import save_weights
from eyeline.cli.main import run
from eyeline.data.images import read_image
from eyeline.errors import EyelineError
from eyeline.inference import Predictor
from eyeline.registry import create_model

needs_int8 = pytest.mark.skipif(
    not torch.cpu._is_vnni_supported(), reason="this processor has no 8-bit products"
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with weights alone, and beside it a folder of pictures."""
    folder = tmp_path_factory.mktemp("calibrate")
    torch.manual_seed(0)
    model = create_model(
        "retinanet",
        classes=["a", "b"],
        backbone="resnet18",
        norm="frozen",
        size=64,
        fpn_channels=32,
    )
    with torch.no_grad():
        model.class_head.output.bias.fill_(0.0)  # else a fresh network finds nothing
        for tower in (model.class_head, model.box_head):
            for conv in (*tower.tower, tower.output):
                conv.weight.mul_(8)
    (folder / "run").mkdir()
    save_weights(model, folder / "run" / "best.safetensors")
    (folder / "pictures").mkdir()
    generator = np.random.default_rng(0)
    for i in range(5):
        coarse = generator.integers(0, 256, (6, 8, 3), np.uint8)
        Image.fromarray(coarse).resize((96, 64)).save(folder / "pictures" / f"{i}.png")
    return folder


def test_command(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = trained / "some.json"
    pictures, folder = str(trained / "pictures"), str(trained / "run")
    assert run(["calibrate", folder, pictures, "--count", "2", "--out", str(out)]) == 0
    assert f"on 2 pictures: {out}" in capsys.readouterr().out
    layers = json.loads(out.read_text())["layers"]
    assert {"backbone.conv1", "fpn.lateral.0", "class_head.tower.3"} <= set(layers)
    before = out.read_bytes()
    assert run(["calibrate", folder, pictures, "--out", str(out)]) == 1
    assert "exists already" in capsys.readouterr().err
    assert out.read_bytes() == before
    weights = str(trained / "run" / "best.safetensors")
    assert run(["calibrate", weights, pictures]) == 1
    assert "--out" in capsys.readouterr().err


@needs_int8
def test_int8_is_near(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, picture = trained / "run", str(trained / "pictures" / "3.png")
    with pytest.raises(EyelineError, match="eyeline calibrate RUN PICTURES"):
        Predictor(folder, precision="int8")
    assert run(["predict", str(folder), picture, "--precision", "int8"]) == 1
    assert "calibrate" in capsys.readouterr().err
    assert run(["calibrate", str(folder), str(trained / "pictures")]) == 0
    assert (folder / "int8.json").is_file()
    exact = Predictor(folder)
    near = Predictor(folder, precision="int8")
    given = Predictor(folder, precision="int8", ranges=folder / "int8.json")
    counts = [sum(p.numel() for p in one.model.parameters()) for one in (exact, near)]
    assert counts[0] == counts[1]
    batch = exact.model.prepare([read_image(Path(picture))])
    with torch.inference_mode():
        logits, deltas, _ = zip(
            *(one.model.heads(batch.images) for one in (exact, near, given)), strict=True
        )
    for levels in (logits, deltas):
        wanted, got, same = (torch.cat(side, 1) for side in levels)  # (1, N, 2 or 4)
        assert 0 < (got - wanted).norm() < 0.1 * (wanted - wanted.mean()).norm()
        assert torch.equal(got, same)
    assert run(["predict", str(folder), picture, "--precision", "int8", "--threshold", "0.3",
                "--out", str(trained / "found")]) == 0  # fmt: skip
    assert len(json.loads((trained / "found" / "detections.json").read_text())) > 0
