"""eyeline data check and show, of data with a class for every pixel."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from eyeline.cli.app import app

RUN = CliRunner()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two splits; 9 is to be ignored, and only a recipe tells what the numbers mean."""
    root = tmp_path / "drives"
    values = np.zeros((48, 64), np.uint8)
    values[24:] = 1
    values[40:, :16] = 2
    values[:8] = 9
    for split in ("train", "val"):
        for part, array in ((split, values * 20), (f"{split}annot", values)):
            (root / part).mkdir(parents=True)
            for i in range(2):
                Image.fromarray(array).save(root / part / f"{i}.png")
    Image.fromarray(np.where(values == 2, 1, values)).save(root / "trainannot/1.png")
    (tmp_path / "recipe.yaml").write_text(
        "model: {name: unet, width: 4, depth: 1, padding: same}\n"
        "classes: [sky, road, car]\n"
        f"data: {{path: {root}, ignore: [9], transforms: [hflip]}}\n"
    )
    return root


def test_check(data: Path, tmp_path: Path) -> None:
    alone = RUN.invoke(app, ["data", "check", str(data)])
    assert alone.exit_code == 1 and "the classes of its masks have no names" in alone.output
    recipe = ["--recipe", str(tmp_path / "recipe.yaml")]
    found = RUN.invoke(app, ["data", "check", str(data), *recipe, "--json", "-", "--no-pictures"])
    maps = json.loads(found.output)["maps"]["train"]
    assert maps["pixels"] == [2 * 16 * 64, 2 * 24 * 64 - 8 * 16, 8 * 16]
    assert maps["within"] == [2, 2, 1] and maps["ignored"] == 2 * 8 * 64
    told = RUN.invoke(app, ["data", "check", str(data), *recipe, "--no-pictures"])
    assert told.exit_code == 0, told.output
    assert "pixels ignored" in told.output and "16.7%" in told.output
    assert "2.50% in 1" in told.output  # of the labelled pixels
    # Frequencies 0.4, 0.575 and 128 / 2560, of the pictures with the class.
    assert "model.class_weights: [1, 0.696, 8]" in told.output


def test_a_bad_number_is_named_by_check(data: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((48, 64), 7, np.uint8)).save(data / "valannot/1.png")
    recipe = ["--recipe", str(tmp_path / "recipe.yaml"), "--no-pictures"]
    found = RUN.invoke(app, ["data", "check", str(data), *recipe])
    assert found.exit_code == 1
    assert f"{data}/valannot/1.png: the value 7 is no class, at x=0, y=0" in found.output


def test_show(data: Path, tmp_path: Path) -> None:
    sheet, page, fed = (tmp_path / name for name in ("sheet.png", "page.html", "fed.png"))
    recipe = str(tmp_path / "recipe.yaml")
    for arguments in (
        ["--sheet", str(sheet), "--recipe", recipe],
        ["--out", str(page), "--recipe", recipe],
        ["--augmented", recipe, "--sheet", str(fed), "--count", "2", "--draws", "1"],
    ):
        done = RUN.invoke(app, ["data", "show", str(data), *arguments])
        assert done.exit_code == 0, done.output
    assert '"maps":true' in page.read_text()
    with Image.open(sheet) as image:
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 24)}
    assert (0x5A, 0xD1, 0xFF) in colours  # the sky's, in the key and at its border
    with Image.open(fed) as image:
        assert image.width > 600
