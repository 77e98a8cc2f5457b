"""Rasters of satellites and aircraft: read by rows, their place on Earth kept."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.inference.test_scene import TILING, Stop, Toy, stop_at

from eyeline.cli.predict_scene import is_scene
from eyeline.data.images import read_image
from eyeline.errors import EyelineError
from eyeline.inference.draw_map import palette_of
from eyeline.inference.rasters import Raster, Whole, opened, write_classes
from eyeline.inference.scene import predict_scene
from eyeline.inference.tiles import sliding_logits

rasterio = pytest.importorskip("rasterio", reason="rasterio, the extra `geo`, is not installed")
copy = pytest.importorskip("rasterio.shutil").copy

PLACE = {
    "crs": "EPSG:32652",
    "transform": rasterio.Affine(0.5, 0, 322000, 0, -0.5, 4160000),
}
H, W = 150, 90


def make(path: Path, values: np.ndarray, **profile: Any) -> Path:
    """(C, H, W) as a GeoTIFF."""
    count, height, width = values.shape
    options: dict[str, Any] = {
        "driver": "GTiff", "dtype": values.dtype.name, "count": count, "height": height,
        "width": width, "tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate",
    }  # fmt: skip
    with rasterio.open(path, "w", **(options | PLACE | profile)) as file:
        file.write(values)
    return path


def noise(*shape: int, high: int = 256, kind: str = "uint8") -> np.ndarray:
    return np.random.default_rng(0).integers(1, high, shape).astype(kind)


def expected(model: Toy, values: np.ndarray) -> np.ndarray:
    """The classes of (C, H, W) uint8 or float in [0, 1], computed in memory."""
    image = torch.from_numpy(np.ascontiguousarray(values))
    return sliding_logits(model, image, TILING).argmax(0).byte().numpy()


def classes_of(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read(1)


@pytest.fixture
def model() -> Toy:
    return Toy().eval()


def test_a_geotiff(model: Toy, tmp_path: Path) -> None:
    values, out = noise(3, H, W), tmp_path / "map.tif"
    scene = make(tmp_path / "scene.tif", values)
    predict_scene(model, scene, out, tiling=TILING)
    with rasterio.open(out) as file, rasterio.open(scene) as source:
        assert file.crs == source.crs and file.crs.to_epsg() == 32652
        assert file.transform == source.transform and file.bounds == source.bounds
        assert file.nodata == 255 and file.dtypes == ("uint8",)
        assert file.profile["tiled"] and file.profile["compress"] == "deflate"
        colours, wanted = file.colormap(1), palette_of(model.classes).tolist()
        assert [colours[i][:3] for i in range(256)] == [*map(tuple, wanted)]
        assert json.loads(file.tags()["CLASSES"]) == list(model.classes)
        assert np.array_equal(file.read(1), expected(model, values))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["map.tif", "scene.tif"]
    with Image.open(out) as image:  # other programs see the colours, too
        assert image.mode == "P" and image.size == (W, H)


@pytest.mark.parametrize("tiled", [True, False])
def test_stopped_and_gone_on_with_it_is_the_same_bit_for_bit(
    tiled: bool, model: Toy, tmp_path: Path
) -> None:
    values = noise(3, H, W)
    scene = make(tmp_path / "scene.tif", values, tiled=tiled, nodata=7)
    whole, out = tmp_path / "whole.tif", tmp_path / "map.tif"
    predict_scene(model, scene, whole, tiling=TILING)
    stops = 0
    for share in (0.2, 0.5, 0.9):
        with pytest.raises(Stop):
            predict_scene(model, scene, out, tiling=TILING, progress=stop_at(share))
        stops += 1
    predict_scene(model, scene, out, tiling=TILING)
    assert stops == 3 and out.read_bytes() == whole.read_bytes()


def test_each_row_is_read_once(model: Toy, tmp_path: Path, monkeypatch: Any) -> None:
    read: list[tuple[int, int]] = []
    plain = Raster._read
    monkeypatch.setattr(Raster, "_read", lambda s, *at: read.append(at) or plain(s, *at))
    scene = make(tmp_path / "scene.tif", noise(3, H, W))
    predict_scene(model, scene, tmp_path / "map.tif", tiling=TILING)
    assert len(read) > 5 and read[0][0] == 0 and read[-1][1] == H
    assert all(a[1] == b[0] for a, b in pairwise(read))


def test_no_data(model: Toy, tmp_path: Path) -> None:
    """A pixel has none where every band has none, where it is transparent, or where it is NaN."""
    values = noise(3, H, W)
    values[:, 40:100, 20:50] = 0
    values[0, :30] = 0  # in one band only
    empty = np.zeros((H, W), bool)
    empty[40:100, 20:50] = True
    out = tmp_path / "a.tif"
    predict_scene(model, make(tmp_path / "0.tif", values, nodata=0), out, tiling=TILING)
    assert np.array_equal(classes_of(out), np.where(empty, 255, expected(model, values)))

    with_alpha = np.concatenate([noise(3, H, W), np.where(empty, 0, 255)[None].astype(np.uint8)])
    scene = make(tmp_path / "1.tif", with_alpha, photometric="RGB", alpha="YES")
    out = tmp_path / "b.tif"
    predict_scene(model, scene, out, tiling=TILING)  # three bands and alpha
    seen = np.where(empty, 0, with_alpha[:3])
    assert np.array_equal(classes_of(out), np.where(empty, 255, expected(model, seen)))

    floats = noise(3, H, W).astype(np.float32) / 255
    floats[1, empty] = np.nan
    out = tmp_path / "c.tif"
    scene = make(tmp_path / "2.tif", floats)
    predict_scene(model, scene, out, tiling=TILING, value_range=(0, 1))
    seen = np.where(empty, np.float32(0), floats)
    assert np.array_equal(classes_of(out), np.where(empty, 255, expected(model, seen)))


@pytest.mark.parametrize("kind", ["uint16", "int16", "int32", "float64"])
def test_values_need_a_range(kind: str, model: Toy, tmp_path: Path) -> None:
    values = noise(3, H, W, high=4000, kind=kind)
    scene, out = make(tmp_path / "scene.tif", values), tmp_path / "map.tif"
    with pytest.raises(EyelineError, match=f"its values are {kind}; say by value_range"):
        predict_scene(model, scene, out)
    predict_scene(model, scene, out, tiling=TILING, value_range=(100, 3000))
    scaled = ((values.astype(np.float32) - 100) / 2900).clip(0, 1)
    assert (scaled == 1).any() and (scaled == 0).any()
    assert np.array_equal(classes_of(out), expected(model, scaled))
    with pytest.raises(EyelineError, match="the values of 0 and 1, not"):
        predict_scene(model, scene, tmp_path / "b.tif", value_range=(1, 1))


def test_bands(tmp_path: Path) -> None:
    values, model = noise(6, H, W), Toy(4).eval()
    scene, out = make(tmp_path / "scene.tif", values, photometric="MINISBLACK"), tmp_path / "a.tif"
    with pytest.raises(EyelineError, match="it has 6 bands, the model takes 4; choose them"):
        predict_scene(model, scene, out)
    with pytest.raises(EyelineError, match="3 bands are chosen, the model takes 4"):
        predict_scene(model, scene, out, bands=(1, 2, 3))
    with pytest.raises(EyelineError, match="it has bands 1 to 6, not 7"):
        predict_scene(model, scene, out, bands=(1, 2, 3, 7))
    predict_scene(model, scene, out, tiling=TILING, bands=(5, 3, 2, 6))
    assert np.array_equal(classes_of(out), expected(model, values[[4, 2, 1, 5]]))
    grey = make(tmp_path / "grey.tif", values[:1])
    predict_scene(Toy().eval(), grey, tmp_path / "b.tif", tiling=TILING, bands=(1, 1, 1))
    with pytest.raises(EyelineError, match="choose them, such as bands 1,1,1"):
        predict_scene(Toy().eval(), grey, tmp_path / "c.tif")


def test_points_and_coefficients_are_kept(model: Toy, tmp_path: Path) -> None:
    point = rasterio.control.GroundControlPoint
    points = [point(0, 0, 127.0, 37.5), point(0, W, 127.1, 37.5), point(H, 0, 127.0, 37.4)]
    crs = rasterio.crs.CRS.from_epsg(4326)
    scene = make(tmp_path / "a.tif", noise(3, H, W), crs=crs, gcps=points, transform=None)
    predict_scene(model, scene, tmp_path / "a-map.tif", tiling=TILING)
    with rasterio.open(tmp_path / "a-map.tif") as file:
        found, system = file.gcps
        assert [(p.row, p.col, p.x, p.y) for p in found] == [
            (p.row, p.col, p.x, p.y) for p in points
        ]
        assert system == crs

    ones = [1.0] + [0.0] * 19
    rpcs = rasterio.rpc.RPC(10, 5, 37, 1, ones, ones, 50, 25, 127, 1, ones, ones, 60, 30)
    plain = {"crs": None, "transform": None}
    scene = make(tmp_path / "b.tif", noise(3, H, W), rpcs=rpcs, **plain)
    predict_scene(model, scene, tmp_path / "b-map.tif", tiling=TILING)
    with rasterio.open(tmp_path / "b-map.tif") as file:
        assert file.rpcs is not None and file.rpcs.lat_off == 37 and file.rpcs.line_scale == 25


def test_what_is_read_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = noise(3, 20, 30)
    picture = Image.fromarray(values.transpose(1, 2, 0))
    picture.save(tmp_path / "a.png")
    picture.save(tmp_path / "plain.tif")
    picture.save(tmp_path / "turned.tif", tiffinfo={274: 6})
    picture.convert("P").save(tmp_path / "palette.tif")
    kinds = {}
    for name in ("a.png", "plain.tif", "turned.tif", "palette.tif"):
        with opened(tmp_path / name) as found:
            kinds[name] = (type(found), found.height, found.width)
    assert kinds == {
        "a.png": (Whole, 20, 30),
        "plain.tif": (Raster, 20, 30),
        "turned.tif": (Whole, 30, 20),  # upright
        "palette.tif": (Whole, 20, 30),
    }
    with opened(tmp_path / "a.png", value_range=(0, 51)) as found:
        assert isinstance(found, Raster)
        scaled = found.values(found.rows(0, 20)).numpy()
        np.testing.assert_allclose(scaled, (values / 51).clip(0, 1), atol=1e-6)
    monkeypatch.setenv("EYELINE_MAX_PIXELS", "100")
    with opened(tmp_path / "a.png") as found:
        assert isinstance(found, Raster)
        assert np.array_equal(found.rows(5, 9).numpy(), values[:, 5:9])


@pytest.mark.parametrize("name", ["a.jp2", "a.jpg", "a.vrt"])
def test_what_else_says_where_it_lies(name: str, model: Toy, tmp_path: Path) -> None:
    """JPEG 2000 itself, a JPEG by its world file, a VRT as GDAL has it."""
    values = noise(3, H, W)
    source, scene = make(tmp_path / "source.tif", values), tmp_path / name
    driver = {"a.jp2": "JP2OpenJPEG", "a.jpg": "JPEG", "a.vrt": "VRT"}[name]
    options = {"QUALITY": "100", "REVERSIBLE": "YES"} if name == "a.jp2" else {}
    if name == "a.jpg":
        options = {"WORLDFILE": "YES"}
    copy(source, scene, driver=driver, **options)
    assert is_scene(scene)
    out = tmp_path / "map.tif"
    predict_scene(model, scene, out, tiling=TILING)
    with rasterio.open(out) as file:
        assert file.transform == PLACE["transform"]
        assert file.crs == PLACE["crs"]
        if name != "a.jpg":
            assert np.array_equal(file.read(1), expected(model, values))


def test_what_says_nothing_of_a_place_is_no_scene(tmp_path: Path) -> None:
    Image.fromarray(noise(20, 30, 3)).save(tmp_path / "a.jp2")
    Image.fromarray(noise(20, 30, 3)).save(tmp_path / "b.png")
    (tmp_path / "b.png.aux.xml").write_text("<PAMDataset/>")  # statistics, as viewers leave them
    (tmp_path / "c.tif").write_bytes(b"II*\0\0")
    (tmp_path / "d.html").write_text("<p>")
    assert not any(is_scene(path) for path in sorted(tmp_path.iterdir()))


@pytest.mark.parametrize("located", [True, False])
def test_values_are_those_of_read_image(located: bool, tmp_path: Path) -> None:
    place: dict[str, Any] = {} if located else {"crs": None, "transform": None}
    path, grey = tmp_path / "white.tif", noise(1, H, W)
    make(path, grey, photometric="MINISWHITE", nodata=7, **place)
    with opened(path, 1) as found:
        assert isinstance(found, Raster)
        wanted = read_image(path, channels=1).where(torch.from_numpy(grey != 7), 0)
        assert torch.equal(found.rows(0, H), wanted)
    path, colours = tmp_path / "alpha.tif", noise(4, H, W, high=128)
    colours[3] = 128
    make(path, colours, photometric="RGB", ALPHA="PREMULTIPLIED", **place)
    if not located:
        with opened(path) as found:
            assert torch.equal(found.rows(0, H), read_image(path))
        return
    with pytest.raises(EyelineError, match=r"alpha.tif: its colours are multiplied by alpha"):
        opened(path).__enter__()
    Image.fromarray(noise(20, 30, 3)).save(path, tiffinfo={274: 6, 33550: (1.0, 1.0, 0.0)})
    with pytest.raises(EyelineError, match=r"alpha.tif: its tag Orientation turns it"):
        opened(path).__enter__()


def test_pictures_that_cannot_be_read(model: Toy, tmp_path: Path) -> None:
    scene, out = make(tmp_path / "scene.tif", noise(3, H, W)), tmp_path / "map.tif"
    with pytest.raises(EyelineError, match="a PNG cannot hold the picture's place on Earth"):
        predict_scene(model, scene, tmp_path / "map.png")
    cut = tmp_path / "cut.tif"
    cut.write_bytes(scene.read_bytes()[:-20000])
    with pytest.raises(EyelineError, match=r"cut.tif: cannot read the picture"):
        predict_scene(model, cut, tmp_path / "cut-map.tif", tiling=TILING)
    (tmp_path / "text.tif").write_text("no picture")
    with pytest.raises(EyelineError, match=r"text.tif: cannot read the picture"):
        predict_scene(model, tmp_path / "text.tif", out)
    indexed = make(tmp_path / "indexed.tif", noise(1, H, W), photometric="palette")
    with pytest.raises(EyelineError, match="numbers of colours; turn it into RGB first"):
        predict_scene(model, indexed, out)
    mixed = tmp_path / "complex.tif"
    make(mixed, noise(3, H, W).astype(np.complex64))
    with pytest.raises(EyelineError, match="its bands are of complex64"):
        predict_scene(model, mixed, out, value_range=(0, 1))
    # Of the one that ends too soon, the rows before that are kept.
    assert {path.name.rpartition(".")[0] for path in tmp_path.glob(".*")} == {".cut-map.tif"}


def test_blocks_are_written_in_order(tmp_path: Path) -> None:
    values, at = noise(1, 700, 300)[0], 0

    def rows(count: int) -> np.ndarray:
        nonlocal at
        at += count
        return values[at - count : at]

    write_classes(tmp_path / "a.tif", rows, 700, 300)
    assert at == 700 and np.array_equal(classes_of(tmp_path / "a.tif"), values)


@pytest.mark.parametrize("short", [10, 3000, 30000])
def test_a_disk_that_is_full_at_the_very_end(short: int, tmp_path: Path) -> None:
    """What GDAL writes when it closes a file, and cannot, it does not tell."""
    resource = pytest.importorskip("resource")
    values = noise(1, 300, 300)[0]
    write_classes(tmp_path / "a.tif", lambda count: values[:count], 256, 300)
    size, limits = (tmp_path / "a.tif").stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - short, limits[1]))
    try:
        with pytest.raises(OSError):
            write_classes(tmp_path / "b.tif", lambda count: values[:count], 256, 300)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


LARGE = """
import resource, sys
import numpy as np, rasterio, torch
from torch import nn
from eyeline.inference.scene import predict_scene
from eyeline.inference.tiles import Tiling
source, target, height = sys.argv[1], sys.argv[2], int(sys.argv[3])
torch.set_num_threads(1)
rows = np.random.default_rng(0).integers(0, 256, (3, 512, 20000), np.uint8)
options = dict(driver="GTiff", dtype="uint8", count=3, height=height, width=20000)
with rasterio.Env(GDAL_CACHEMAX=64), rasterio.open(source, "w", **options) as file:
    for top in range(0, height, 512):
        count = min(512, height - top)
        window = rasterio.windows.Window(0, top, 20000, count)
        file.write(rows[:, :count], window=window)
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 11, 1))
    def forward(self, images):
        found = self.layers(images / 255)
        return nn.functional.interpolate(found, images.shape[2:], mode="bilinear")
predict_scene(Net().eval(), source, target, tiling=Tiling(512, 0.25, margin=16))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_height(tmp_path: Path) -> None:
    """At a width of 20,000 pixels, far below 2 GiB with torch itself."""
    used = []
    for height in (1200, 2400):
        command = [sys.executable, "-c", LARGE, tmp_path / f"{height}.tif", tmp_path / "m.tif"]
        done = subprocess.run(
            [*map(str, command), str(height)], capture_output=True, text=True, timeout=500
        )
        assert done.returncode == 0, done.stderr
        (tmp_path / "m.tif").unlink()
        used.append(int(done.stdout))
    assert used[1] < 1100 and used[1] - used[0] < 40
