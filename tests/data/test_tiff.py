from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.data.tiffs import SEEN, write_tiff

from eyeline.data.images import image_size, is_rotated, read_image
from eyeline.errors import EyelineError

RNG = np.random.default_rng(0)


def samples(dtype: str, channels: int) -> np.ndarray:
    values = RNG.random((9, 7, channels))
    return (values if dtype[0] == "f" else values * np.iinfo(dtype).max).astype(dtype)


def read(path: Path, channels: int = 3) -> np.ndarray:
    return read_image(path, channels=channels).permute(1, 2, 0).numpy()


LAYOUTS: dict[str, dict[str, Any]] = {
    "one strip": {},
    "strips": dict(rows=4),
    "big endian": dict(order=">", rows=4),
    "planar": dict(planar=True, rows=4),
    "deflate": dict(deflate=True, rows=4),
    "differences": dict(deflate=True, predictor=2, rows=2),
    "planar differences": dict(deflate=True, predictor=2, planar=True, order=">"),
}


@pytest.mark.parametrize("options", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("channels", [2, 5, 12])
def test_channels_are_read_as_they_are(
    tmp_path: Path, channels: int, dtype: str, options: dict[str, Any]
) -> None:
    array = samples(dtype, channels)
    found = read(write_tiff(tmp_path / "a.tif", array, **options), channels)
    if dtype == "u1":
        assert found.dtype == np.uint8 and np.array_equal(found, array)
    else:
        assert found.dtype == np.float32
        assert np.array_equal(found, array.astype(np.float32) / 65535)
        assert np.array_equal((found * 65535).round(), array)  # no value is lost


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_floats_are_kept(tmp_path: Path, dtype: str) -> None:
    array = samples(dtype, 4)
    assert np.array_equal(read(write_tiff(tmp_path / "a.tif", array), 4), array.astype("f4"))
    write_tiff(tmp_path / "b.tif", array * 9)
    with pytest.raises(EyelineError, match=r"b\.tif: cannot read the picture: pixels from .* to 1"):
        read(tmp_path / "b.tif", 4)


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_deflate", "raw"])
def test_what_pillow_compresses(tmp_path: Path, compression: str) -> None:
    array = np.repeat(samples("u1", 3), 3, 0)
    Image.fromarray(array).save(tmp_path / "a.tif", compression=compression)
    assert np.array_equal(read(tmp_path / "a.tif"), array)


@pytest.mark.parametrize(("photometric", "channels"), [(2, 3), (1, 3), (2, 4)])
def test_sixteen_bits_are_rounded_to_eight(tmp_path: Path, photometric: int, channels: int) -> None:
    array = samples("u2", channels)
    array[0, :2, :3] = [[127, 128, 255], [256, 65535, 65280]]
    expected = np.rint(array[..., :3] / 257)  # 65535 is 255, as 255 is
    found = read(write_tiff(tmp_path / "a.tif", array, photometric, (2,) * (channels - 3)))
    assert found.dtype == np.uint8 and np.array_equal(found, expected)
    assert found[0, :2].tolist() == [[0, 0, 1], [1, 255, 254]]  # the upper bytes: 0 0 0, 1 255 255


def test_grey_with_alpha_and_premultiplied_colours(tmp_path: Path) -> None:
    grey = np.array([[[20000, 30000]]], "u2")
    assert read(write_tiff(tmp_path / "a.tif", grey, 1, (2,))).tolist() == [[[78, 78, 78]]]
    inked = np.array([[[10000, 20000, 30000, 32768], [0, 0, 0, 0]]], "u2")
    found = read(write_tiff(tmp_path / "b.tif", inked, 2, (1,)))
    assert found.tolist() == [[[78, 156, 233], [0, 0, 0]]]  # twice as light
    white_is_zero = write_tiff(tmp_path / "c.tif", np.array([[[65535], [0]]], "u2"), 0)
    assert read(white_is_zero).tolist() == [[[0] * 3, [255] * 3]]


def test_another_number_of_channels_is_told(tmp_path: Path) -> None:
    five = write_tiff(tmp_path / "five.tif", samples("u1", 5), 2, (0, 0))  # Pillow takes it for RGB
    for channels in (1, 3, 4):
        with pytest.raises(EyelineError, match=rf"five\.tif: .*5 channels, not {channels};.*=5"):
            read(five, channels)
    two = write_tiff(tmp_path / "two.tif", samples("u1", 2))
    with pytest.raises(EyelineError, match="2 channels, not 3"):
        read(two)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("channels", [3, 5])
def test_every_orientation(tmp_path: Path, channels: int, orientation: int) -> None:
    array = samples("u1", channels)
    path = write_tiff(tmp_path / "a.tif", array, orientation=orientation)
    expected = SEEN[orientation - 1](array)
    assert np.array_equal(read(path, channels), expected)
    assert image_size(path) == expected.shape[:2] and is_rotated(path) is (orientation > 4)


@pytest.mark.parametrize("dtype", ["i2", "u4", "i4"])
def test_kinds_that_are_not_known(tmp_path: Path, dtype: str) -> None:
    path = write_tiff(tmp_path / "a.tif", samples(dtype, 3))
    with pytest.raises(EyelineError, match=r"a\.tif: cannot .* not of 8 or 16 bits without sign"):
        read(path)


def test_the_first_page_counts(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (4, 3), colour) for colour in ("red", "blue")]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert read(tmp_path / "a.tif")[0, 0].tolist() == [255, 0, 0]


def test_cut_files_are_named(tmp_path: Path) -> None:
    whole = write_tiff(tmp_path / "a.tif", samples("u2", 5), deflate=True, rows=3).read_bytes()
    path = tmp_path / "cut.tif"
    for end in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:end])
        with pytest.raises(EyelineError, match=r"cut\.tif: "):
            read(path, 5)
