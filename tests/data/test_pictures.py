"""Pictures of every kind: what read_image makes of them, and what it refuses."""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.data.tiffs import SEEN, write_tiff

from eyeline.data.images import image_size, is_rotated, read_image
from eyeline.errors import EyelineError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 4, 3), dtype=np.uint8)


def pixels(path: Path, channels: int = 3) -> np.ndarray:
    return read_image(path, channels=channels).permute(1, 2, 0).numpy()


def png(path: Path, array: np.ndarray, exif: bytes | None = None) -> Path:
    """A PNG of 16 bits, (H, W, 1 to 4); EXIF data, if any, behind the pixels."""
    height, width, channels = array.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0),
        b"IDAT": zlib.compress(rows),
        **({b"eXIf": exif} if exif else {}),
        b"IEND": b"",
    }
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in chunks.items()
        )
    )
    return path


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


# ---- EXIF


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "avif"])
def test_every_orientation_in_every_format(tmp_path: Path, suffix: str, orientation: int) -> None:
    array = RGB.repeat(8, 0).repeat(8, 1)
    upright, path = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    options: dict[str, Any] = {"jpg": dict(subsampling=0), "webp": dict(lossless=True)}.get(
        suffix, {}
    )
    Image.fromarray(array).save(upright, **options)
    Image.fromarray(array).save(path, exif=turned(orientation), **options)
    expected = SEEN[orientation - 1](pixels(upright))
    assert np.array_equal(pixels(path), expected)
    assert image_size(path) == expected.shape[:2] and is_rotated(path) is (orientation > 4)


def test_exif_behind_the_pixels_of_a_png(tmp_path: Path) -> None:
    array = RNG.integers(0, 65536, (6, 4, 3)).astype(np.uint16)
    path = png(tmp_path / "a.png", array, turned(6).tobytes().removeprefix(b"Exif\0\0"))
    assert image_size(path) == (4, 6) and is_rotated(path)
    assert np.array_equal(pixels(path), np.rot90(np.rint(array / 257), -1))


def test_a_header_is_read_without_its_pixels(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(RGB).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"IDAT") + 6])
    assert image_size(path) == (6, 4) and not is_rotated(path)
    with pytest.raises(EyelineError, match=r"a\.png: cannot read the picture: .*truncated"):
        read_image(path)


# ---- values


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_of_a_png(tmp_path: Path, channels: int) -> None:
    """Pillow gives the upper byte of all but grey ones: 255 of 65280, and 0 of 255."""
    array = RNG.integers(0, 65536, (6, 4, channels)).astype(np.uint16)
    array[0, :3, 0] = 65280, 255, 128
    path = png(tmp_path / "a.png", array)
    colours = array[..., :3] if channels > 2 else array[..., [0, 0, 0]]
    found = pixels(path)
    assert np.array_equal(found, np.rint(colours / 257))
    assert found[0, :3, 0].tolist() == [254, 1, 0]
    if channels != 3:
        assert np.array_equal(pixels(path, channels), array.astype(np.float32) / 65535)


def cmyk() -> np.ndarray:
    array = np.zeros((64, 64, 4), np.uint8)
    array[..., 0], array[..., 1] = np.arange(64) * 4, np.arange(64)[:, None] * 4
    array[..., 2], array[:, 32:, 3] = 120, 90
    return array


# Colours at (row, column) as torchvision 0.28 decodes the same files with ImageReadMode.RGB;
# OpenCV 5.0's differ by 2 at most.
INKED = {(20, 40): (61, 113, 87), (0, 0): (255, 255, 135), (60, 8): (223, 15, 135)}


def test_cmyk_jpegs(tmp_path: Path) -> None:
    Image.fromarray(cmyk(), "CMYK").save(tmp_path / "cmyk.jpg", quality=98, subsampling=0)
    content = (tmp_path / "cmyk.jpg").read_bytes()
    start = content.index(b"\xff\xee")  # Adobe's marker; its inks are upside down in the file
    length = struct.unpack(">H", content[start + 2 : start + 4])[0]
    (tmp_path / "bare.jpg").write_bytes(content[:start] + content[start + 2 + length :])
    for name in ("cmyk.jpg", "bare.jpg"):
        found = pixels(tmp_path / name)
        for place, colour in INKED.items():
            assert np.abs(found[place].astype(int) - colour).max() <= 1
    inks = pixels(tmp_path / "cmyk.jpg", 4)
    assert np.abs(inks.astype(int) - cmyk()).max() <= 2


def test_ycck_jpegs(tmp_path: Path) -> None:
    simplejpeg = pytest.importorskip("simplejpeg")
    inverted = np.ascontiguousarray(255 - cmyk())
    path = tmp_path / "ycck.jpg"
    path.write_bytes(
        simplejpeg.encode_jpeg(inverted, 98, colorspace="CMYK", colorsubsampling="444")
    )
    assert Image.open(path).info["adobe_transform"] == 2  # it is YCCK
    for place, colour in INKED.items():
        assert np.abs(pixels(path)[place].astype(int) - colour).max() <= 3


def test_alpha_is_dropped_and_colours_are_straight(tmp_path: Path) -> None:
    alpha = RNG.integers(1, 256, (6, 4, 1), dtype=np.uint8)
    alpha[0, 0] = 0  # invisible, and yet of a colour
    rgba = np.concatenate([RGB, alpha], 2)
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    assert np.array_equal(pixels(tmp_path / "rgba.png"), RGB)
    assert np.array_equal(pixels(tmp_path / "rgba.png", 4), rgba)
    la = rgba[..., [0, 3]]
    Image.fromarray(la, "LA").save(tmp_path / "la.png")
    assert np.array_equal(pixels(tmp_path / "la.png"), RGB[..., [0, 0, 0]])
    assert np.array_equal(pixels(tmp_path / "la.png", 2), la)
    assert np.array_equal(pixels(tmp_path / "la.png", 1), la[..., :1])


def test_palettes_and_single_bits(tmp_path: Path) -> None:
    colours = [[10, 20, 30], [200, 100, 50]]
    image = Image.new("P", (2, 1))
    image.putpalette([value for colour in colours for value in colour])
    image.putpixel((1, 0), 1)
    for name, options in (("a.png", {}), ("b.png", dict(transparency=0)), ("c.gif", {})):
        image.save(tmp_path / name, **options)
        assert pixels(tmp_path / name).tolist() == [colours]
    assert pixels(tmp_path / "b.png", 4).tolist() == [[[10, 20, 30, 0], [200, 100, 50, 255]]]
    bits = Image.fromarray(np.array([[True, False]]))
    for name in ("bits.png", "bits.tif", "bits.bmp"):
        bits.save(tmp_path / name)
        assert Image.open(tmp_path / name).mode == "1"
        assert pixels(tmp_path / name).tolist() == [[[255] * 3, [0] * 3]]


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "avif"])
def test_the_first_frame_counts(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (16, 8), colour) for colour in ("red", "blue", "lime")]
    path = tmp_path / f"a.{suffix}"
    options = {} if suffix == "gif" else dict(quality=100)
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100, **options)
    assert getattr(Image.open(path), "n_frames", 1) == 3
    assert np.abs(pixels(path).reshape(-1, 3).astype(int) - [255, 0, 0]).max() <= 3


def test_grey_of_colours(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    grey = pixels(tmp_path / "a.png", 1)
    assert grey.shape == (6, 4, 1) and grey.dtype == np.uint8
    assert np.abs(grey[..., 0] - RGB @ [0.299, 0.587, 0.114]).max() <= 1
    deep = RNG.integers(0, 65536, (6, 4, 1)).astype(np.uint16)
    assert np.array_equal(pixels(png(tmp_path / "b.png", deep), 1), deep.astype("f4") / 65535)


# ---- arrays


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 1), (6, 4, 5)])
def test_arrays(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path, channels = tmp_path / "a.npy", (*shape, 1)[2]
    for array in (
        RNG.integers(0, 256, shape).astype(np.uint8),
        RNG.integers(0, 65536, shape).astype(np.uint16),
        RNG.random(shape).astype(">f8"),
        np.asfortranarray(RNG.random(shape).astype(np.float32)),
    ):
        np.save(path, array)
        assert image_size(path) == (6, 4)
        image = read_image(path, channels=channels)
        assert image.shape == (channels, 6, 4) and image.permute(1, 2, 0).is_contiguous()
        expected = array.reshape(6, 4, channels)
        if array.dtype == np.uint16:
            expected = expected.astype(np.float32) / 65535
        dtype = np.uint8 if array.dtype == np.uint8 else np.float32
        assert np.array_equal(image.permute(1, 2, 0).numpy(), expected.astype(dtype))


def test_arrays_of_colours_are_bytes(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", RGB / 255)
    assert np.array_equal(pixels(tmp_path / "a.npy"), RGB)
    np.save(tmp_path / "a.npy", RGB)
    image = read_image(tmp_path / "a.npy")
    image += 1  # its own memory: the file stays
    assert np.array_equal(np.load(tmp_path / "a.npy"), RGB)


class Trap:
    """Unpickled, it leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def test_arrays_that_are_no_pictures(tmp_path: Path) -> None:
    trap = np.empty((2, 2), object)
    trap[:] = Trap(tmp_path / "trace")
    np.save(tmp_path / "object.npy", trap, allow_pickle=True)
    (tmp_path / "pickle.npy").write_bytes(pickle.dumps(Trap(tmp_path / "trace")))
    for name, array, message in (
        ("one.npy", np.zeros(7, np.uint8), r"shape \(7,\) is no picture"),
        ("four.npy", np.zeros((1, 2, 3, 4), np.uint8), "is no picture"),
        ("empty.npy", np.zeros((0, 4, 3), np.uint8), "cannot read"),
        ("int.npy", np.zeros((4, 4), np.int64), "array of int64; give uint8, uint16, or floats"),
        ("high.npy", np.full((4, 4, 3), 7.0), "pixels from 7.0 to 7.0, not 0 to 1"),
        ("nan.npy", np.full((4, 4, 3), np.nan), "not 0 to 1"),
        ("chw.npy", np.zeros((3, 8, 9), np.uint8), r"9 channels, not 3"),
        ("object.npy", None, "Python objects"),
        ("pickle.npy", None, "not a picture"),
    ):
        if array is not None:
            np.save(tmp_path / name, array)
        with pytest.raises(EyelineError, match=message) as error:
            read_image(tmp_path / name)
        assert name in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "trace").exists()


# ---- size


def test_a_limit_on_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "a.npy", np.zeros((20, 30, 3), np.uint8))
    write_tiff(tmp_path / "a.tif", np.zeros((20, 30, 5), np.uint8))
    for name in ("a.png", "a.jpg", "a.gif", "a.webp"):
        Image.new("RGB", (30, 20)).save(tmp_path / name)
    for path in sorted(tmp_path.iterdir()):
        channels = 5 if path.suffix == ".tif" else 3
        monkeypatch.setenv("EYELINE_MAX_PIXELS", "599")
        with pytest.raises(
            EyelineError,
            match=rf"{path.name}: .*30x20 are 600 pixels, more than the limit of 599; .*=600 to",
        ):
            read_image(path, channels=channels)
        assert image_size(path) == (20, 30)  # the header may be read
        monkeypatch.setenv("EYELINE_MAX_PIXELS", "600")
        assert read_image(path, channels=channels).shape == (channels, 20, 30)
    monkeypatch.setenv("EYELINE_MAX_PIXELS", "many")
    with pytest.raises(EyelineError, match="EYELINE_MAX_PIXELS is 'many', not a number of pixels"):
        read_image(path)


def huge_png(path: Path, width: int, height: int) -> Path:
    """A PNG of a few bytes that claims to be so large."""
    png(path, np.zeros((1, 1, 3), np.uint16))
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    return path


def test_large_pictures_are_refused_quietly(tmp_path: Path) -> None:
    """In a process of its own, whose stderr would show a warning of Pillow."""
    large = huge_png(tmp_path / "large.png", 30_000, 20_000)
    half = huge_png(tmp_path / "half.png", 10_000, 10_000)  # Pillow would warn of it
    code = (
        "import sys; from eyeline.data.images import image_size, read_image\n"
        "for path in sys.argv[1:]:\n"
        "    print(image_size(path))\n"
        "    try: read_image(path)\n"
        "    except ValueError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, large, half], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "(20000, 30000)" and lines[2] == "(10000, 10000)" and len(lines) == 4
    assert "30000x20000 are 600,000,000 pixels, more than the limit of 178,956,970" in lines[1]
    assert "EYELINE_MAX_PIXELS=600000000" in lines[1]
    assert "half.png: cannot read the picture" in lines[3] and "limit" not in lines[3]
    assert done.stderr == ""


# ---- files


def test_what_a_file_is_called_does_not_matter(tmp_path: Path) -> None:
    for suffix in ("png", "bmp", "tif", "gif"):
        path = tmp_path / "a.jpg"
        Image.fromarray(RGB).convert("L").save(path, suffix if suffix != "tif" else "tiff")
        assert read_image(path).shape == (3, 6, 4)
    np.save(tmp_path / "b.npy", RGB)
    (tmp_path / "b.npy").rename(tmp_path / "b.png")
    assert np.array_equal(pixels(tmp_path / "b.png"), RGB)
    for name, content in (("eps.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n"), ("svg.png", b"<svg/>")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(EyelineError, match=rf"{name}: not a picture of a known format"):
            read_image(tmp_path / name)


NAMES = (
    "a b.png",
    "고양이.png",
    "🐈.png",
    "a#b.png",
    "what?.png",
    "a%20b.png",
    "[a]*.png",
    "'\".png",
)


@pytest.mark.parametrize("name", NAMES)
def test_names_of_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name.removesuffix(".png") / name
    path.parent.mkdir()
    Image.fromarray(RGB).save(path)
    assert np.array_equal(pixels(path), RGB) and image_size(path) == (6, 4)


def test_long_paths(tmp_path: Path) -> None:
    folder = tmp_path
    while len(str(folder)) < 300:
        folder = folder / ("long " * 8)
    folder.mkdir(parents=True)
    Image.fromarray(RGB).save(folder / "a.png")
    assert np.array_equal(pixels(folder / "a.png"), RGB)
    for path in (tmp_path / ("a" * 300 + ".png"), tmp_path / "a\0.png"):
        for read in (read_image, image_size):
            with pytest.raises(EyelineError, match=r"cannot read the picture: .*(long|null)") as e:
                read(path)
            assert str(e.value).count(".png") == 1


# ---- damage


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Cut, zeroed in part, with bits turned, or two of these."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 3)):
        at = int(rng.integers(len(data))) if data else 0
        match rng.integers(4):
            case 0:
                del data[at:]
            case 1:
                data[at : at + 40] = bytes(len(data[at : at + 40]))
            case 2:
                for place in rng.integers(len(data), size=5) if data else ():
                    data[place] ^= 1 << int(rng.integers(8))
            case 3:  # near the start, where headers are
                for place in rng.integers(min(len(data), 60), size=3) if data else ():
                    data[place] = int(rng.integers(256))
    return bytes(data)


def specimens(folder: Path) -> list[bytes]:
    array = np.repeat(np.repeat(RGB, 4, 0), 6, 1)
    image = Image.fromarray(array)
    kinds: dict[str, dict[str, Any]] = {
        "a.jpg": {}, "b.jpg": dict(progressive=True, exif=turned(6)), "a.png": {}, "a.gif": {},
        "b.png": dict(exif=turned(3)), "a.webp": {}, "a.bmp": {}, "a.ppm": {}, "a.avif": {},
        "a.tif": {}, "b.tif": dict(compression="tiff_lzw"), "c.tif": dict(compression="jpeg"),
        "a.jp2": {},
    }  # fmt: skip
    for name, options in kinds.items():
        image.save(folder / name, **options)
    image.convert("P").save(folder / "p.png")
    image.convert("CMYK").save(folder / "c.jpg")
    deep = RNG.integers(0, 65536, (9, 8, 3)).astype(np.uint16)
    png(folder / "deep.png", deep)
    write_tiff(folder / "deep.tif", deep, deflate=True, predictor=2, rows=4)
    np.save(folder / "a.npy", array)
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def test_damaged_pictures_are_read_or_refused(tmp_path: Path) -> None:
    """200 mutated pictures: a tensor, or one line that names the file; nothing else, ever."""
    rng = np.random.default_rng(1)
    contents = specimens(tmp_path)
    read = refused = 0
    for i in range(200):
        path = tmp_path / f"x{i}.{('jpg', 'png', 'tif')[i % 3]}"  # most have a wrong name
        path.write_bytes(mutated(contents[i % len(contents)], rng))
        try:
            size = image_size(path)
            image = read_image(path)
        except EyelineError as error:
            text = str(error)
            assert text.startswith(f"{path}: ") and "\n" not in text and len(text) < 500
            refused += 1
        else:
            assert image.dtype == torch.uint8 and tuple(image.shape) == (3, *size)
            read += 1
    assert read > 30 and refused > 60
