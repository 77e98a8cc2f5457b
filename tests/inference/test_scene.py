"""Pictures larger than memory: from a file to a file, gone on with after an end, as in memory."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.inference.toy_segmenter import toy
from torch import Tensor, nn

from eyeline.errors import EyelineError
from eyeline.inference import scene
from eyeline.inference.draw_map import palette_of
from eyeline.inference.scene import predict_scene
from eyeline.inference.tiles import Tiling, sliding_logits, spans
from eyeline.nn.int8 import Grid, Int8Conv2d

TILING = Tiling(tile=32, overlap=0.5, align=8, batch_size=2)
H, W = 150, 90


class Toy(nn.Module):
    classes = ("grass", "water", "sand", "street", "roof")

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.channels = channels
        self.conv = nn.Conv2d(channels, 5, 5, padding=2)
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return self.conv(images / 255 if images.dtype == torch.uint8 else images)


@pytest.fixture
def model() -> Toy:
    return Toy().eval()


@pytest.fixture
def png(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 256, (H, W, 3), np.uint8)
    Image.fromarray(values).save(tmp_path / "scene.png")
    return tmp_path / "scene.png"


def expected(model: Toy, path: Path, tiling: Tiling = TILING) -> np.ndarray:
    image = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
    return sliding_logits(model, image, tiling).argmax(0).byte().numpy()


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_png(model: Toy, png: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    out = tmp_path / "new" / "map.png"
    found = predict_scene(model, png, out, tiling=TILING, progress=lambda *at: told.append(at))
    with Image.open(out) as image:
        assert (
            image.mode == "P"
            and image.getpalette()[:6] == palette_of(model.classes)[:2].ravel().tolist()
        )
        values = np.array(image)
    assert np.array_equal(values, expected(model, png))
    assert len(np.unique(values)) > 2
    assert found.pixels == tuple(np.bincount(values.ravel(), minlength=256))
    assert (found.path, found.height, found.width) == (out, H, W)
    assert told[0] == (0, H) and told[-1] == (H, H) and len(told) > 5
    assert left(out.parent) == ["map.png"]


class Stop(BaseException):
    """As Ctrl-C is."""


def stop_at(share: float) -> Any:
    def progress(done: int, rows: int) -> None:
        if done >= share * rows:
            raise Stop

    return progress


@pytest.mark.parametrize("cut", [0, 7, 100])
def test_it_goes_on_where_it_stopped(cut: int, model: Toy, png: Path, tmp_path: Path) -> None:
    out, rows = tmp_path / "map.png", tmp_path / ".map.png.rows"
    with pytest.raises(Stop):
        predict_scene(model, png, out, tiling=TILING, progress=stop_at(0.5))
    assert left(tmp_path) == [".map.png.begun", ".map.png.rows", "scene.png"]
    if cut:  # as a kill leaves it, in the midst of a row
        os.truncate(rows, rows.stat().st_size - cut)
    done, told = rows.stat().st_size // W, []
    ends = [*(span.low for span in spans(H, TILING)[1:]), H]
    undone = sum(end > done for end in ends)  # rows of tiles
    model.calls = 0
    predict_scene(model, png, out, tiling=TILING, progress=lambda *at: told.append(at))
    assert told[0] == (done, H) and 60 < done < H
    batches = -(-(len(spans(W, TILING)) - 1) // 2) + 1  # of a row; the last tile is larger
    assert model.calls == (undone + 1) * batches and undone < len(ends) - 2
    assert np.array_equal(np.array(Image.open(out)), expected(model, png))
    assert left(tmp_path) == ["map.png", "scene.png"]


def test_stopped_before_the_first_rows_leaves_nothing(
    model: Toy, png: Path, tmp_path: Path
) -> None:
    with pytest.raises(Stop):
        predict_scene(model, png, tmp_path / "map.png", tiling=TILING, progress=stop_at(0))
    assert left(tmp_path) == ["scene.png"]


def test_it_does_not_go_on_with_something_else(model: Toy, png: Path, tmp_path: Path) -> None:
    out = tmp_path / "map.png"

    def again(wanted: Toy = model, tiling: Tiling = TILING, **options: Any) -> None:
        predict_scene(wanted, png, out, tiling=tiling, progress=stop_at(0.5), **options)

    with pytest.raises(Stop):
        again()
    kept = (tmp_path / ".map.png.rows").read_bytes()
    with pytest.raises(EyelineError, match="begun with another model"):
        again(Toy().eval())
    with pytest.raises(EyelineError, match=r"begun with overlap 0.5, now it is 0.25; go on as"):
        again(tiling=Tiling(32, 0.25, align=8))
    with pytest.raises(EyelineError, match="begun with tta None, now it is True"):
        again(options={"tta": True})
    with pytest.raises(Stop):  # of which the result does not depend
        again(tiling=Tiling(32, 0.5, align=8, batch_size=1))
    assert (tmp_path / ".map.png.rows").read_bytes()[: len(kept)] == kept
    os.utime(png, (1, 1))
    with pytest.raises(EyelineError, match="begun with the picture as it was before"):
        again()
    (tmp_path / ".map.png.begun").write_text("{")
    with pytest.raises(EyelineError, match="cannot be read; delete it"):
        again()
    (tmp_path / ".map.png.begun").unlink()
    predict_scene(model, png, out, tiling=TILING)
    assert np.array_equal(np.array(Image.open(out)), expected(model, png))


def test_targets_that_cannot_be(model: Toy, png: Path, tmp_path: Path) -> None:
    with pytest.raises(EyelineError, match="exists already"):
        predict_scene(model, png, png)
    with pytest.raises(EyelineError, match=r"endings .tif, .tiff, .png"):
        predict_scene(model, png, tmp_path / "map.jpg")
    with pytest.raises(EyelineError, match="cannot be made a folder"):
        predict_scene(model, png, png / "in" / "map.png")
    assert left(tmp_path) == ["scene.png"]


def test_two_at_once(model: Toy, png: Path, tmp_path: Path) -> None:
    def progress(done: int, rows: int) -> None:
        predict_scene(model, png, tmp_path / "map.png")

    with pytest.raises(EyelineError, match=r"process \d+ on .* is writing it"):
        predict_scene(model, png, tmp_path / "map.png", progress=progress)


def test_a_full_disk_keeps_what_is_done(
    model: Toy, png: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, calls = tmp_path / "map.png", []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 6:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(scene.os, "fsync", full)
    with pytest.raises(EyelineError, match=r"No space left on device; what is done is kept"):
        predict_scene(model, png, out, tiling=TILING)
    assert left(tmp_path) == [".map.png.begun", ".map.png.rows", "scene.png"]
    monkeypatch.undo()
    predict_scene(model, png, out, tiling=TILING)
    assert np.array_equal(np.array(Image.open(out)), expected(model, png))


def test_what_comes_in_its_place_meanwhile_stays(model: Toy, png: Path, tmp_path: Path) -> None:
    out = tmp_path / "map.png"

    def progress(done: int, rows: int) -> None:
        if done == rows:
            out.write_text("precious")

    with pytest.raises(EyelineError, match=r"another file has come there; move it away; what is"):
        predict_scene(model, png, out, tiling=TILING, progress=progress)
    assert out.read_text() == "precious" and (tmp_path / ".map.png.rows").stat().st_size == H * W
    out.unlink()
    model.calls = 0
    predict_scene(model, png, out, tiling=TILING)
    assert model.calls == 0 and np.array_equal(np.array(Image.open(out)), expected(model, png))


def test_a_model_that_resizes_sees_the_picture_as_a_whole(
    png: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = toy(seeing=False, min_size=32, max_size=64)
    image = torch.from_numpy(np.array(Image.open(png))).permute(2, 0, 1)
    predict_scene(model, png, tmp_path / "map.png", whole=True)
    wanted = model(image[None])[0].argmax(0).byte().numpy()
    assert np.array_equal(np.array(Image.open(tmp_path / "map.png")), wanted)
    monkeypatch.setattr(scene, "LARGEST", H * W * 3 - 1)
    with pytest.raises(EyelineError, match=r"pixels of 3 classes are too many .* model.size=0"):
        predict_scene(model, png, tmp_path / "b.png", whole=True)


@pytest.mark.parametrize("what", ["grid", "weights"])
def test_ranges_of_8_bits_are_a_part_of_the_model(what: str) -> None:
    conv = nn.Conv2d(3, 4, 3)
    prints = [scene.fingerprint(nn.Sequential(Int8Conv2d(conv, Grid(0.1, 0), None, torch.float32)))]
    if what == "weights":
        conv.weight.data *= 2  # the same steps, twice as far apart
    grid = Grid(0.1, 0) if what == "weights" else Grid(0.2, 0)
    prints.append(scene.fingerprint(nn.Sequential(Int8Conv2d(conv, grid, None, torch.float32))))
    assert prints[0] != prints[1]


def test_too_many_classes(png: Path, tmp_path: Path) -> None:
    def wide(images: Tensor) -> Tensor:
        return images[:, :1].float().expand(-1, 256, -1, -1)

    with pytest.raises(EyelineError, match="holds 255 of them, the model has 256"):
        predict_scene(wide, png, tmp_path / "map.png")
    assert left(tmp_path) == ["scene.png"]


def test_without_rasterio(
    model: Toy, png: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain pictures are read whole; what would lose its place on Earth is refused."""
    monkeypatch.setitem(sys.modules, "rasterio", None)
    plain, out = tmp_path / "plain.tif", tmp_path / "map.tif"
    Image.open(png).save(plain)
    predict_scene(model, plain, out, tiling=TILING)
    with Image.open(out) as image:
        assert image.mode == "P" and np.array_equal(np.array(image), expected(model, png))
    located = tmp_path / "located.tif"
    Image.open(png).save(located, tiffinfo={33550: (1.0, 1.0, 0.0)})
    told = r"needs the package rasterio; install it: pip install 'eyeline\[geo\]'"
    with pytest.raises(EyelineError, match=f"says where on Earth it lies; that {told}"):
        predict_scene(model, located, tmp_path / "b.tif")
    with pytest.raises(EyelineError, match=f"bands or value_range are given; that {told}"):
        predict_scene(model, plain, tmp_path / "b.tif", bands=(1, 2, 3))
    (tmp_path / "scene.vrt").write_text("<VRTDataset/>")
    with pytest.raises(EyelineError, match=f"Pillow cannot read it; that {told}"):
        predict_scene(model, tmp_path / "scene.vrt", tmp_path / "b.tif")
    with pytest.raises(EyelineError, match="no such picture"):
        predict_scene(model, tmp_path / "none.tif", tmp_path / "b.tif")
    monkeypatch.setenv("EYELINE_MAX_PIXELS", "1000")
    with pytest.raises(EyelineError, match="more than the limit"):
        predict_scene(model, plain, tmp_path / "b.tif")
