from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eyeline.data import images
from eyeline.data.images import find_images, image_size, is_rotated, read_image, read_pixels
from eyeline.errors import EyelineError

RGB = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3  # 6 wide, 4 high
GREY = RGB[..., 0]


def write(path: Path, array: np.ndarray, mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def test_rgb_is_read_as_it_is(tmp_path: Path) -> None:
    image = read_image(write(tmp_path / "a.png", RGB))
    assert image.dtype == torch.uint8
    assert image.permute(1, 2, 0).is_contiguous()  # a pixel's values side by side
    assert torch.equal(image, torch.from_numpy(RGB).permute(2, 0, 1))


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [(mode, "png") for mode in ("L", "LA", "RGBA", "P", "I;16")] + [("CMYK", "tif")],
)
def test_other_modes_become_rgb(tmp_path: Path, mode: str, suffix: str) -> None:
    grey = np.stack([GREY] * 3, 2)
    if mode == "I;16":
        path = write(tmp_path / "a.png", GREY.astype(np.uint16) * 257)
        assert Image.open(path).mode == "I;16"
    else:
        path = write(tmp_path / f"a.{suffix}", GREY if mode == "P" else grey, mode)
        assert Image.open(path).mode == mode
    assert read_image(path).permute(1, 2, 0).numpy().tolist() == grey.tolist()


def test_palette_with_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=bytes([0, 255]))
    expected = [[[10, 40]], [[20, 50]], [[30, 60]]]
    assert read_image(tmp_path / "a.png").tolist() == expected


def test_float_pixels_are_scaled_or_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.array([[0.0, 0.5, 1.0]], np.float32))
    assert read_image(path)[0].tolist() == [[0, 128, 255]]
    path = write(tmp_path / "b.tif", np.array([[0.0, 7.0]], np.float32))
    with pytest.raises(EyelineError, match=r"b\.tif.*0\.0 to 7\.0"):
        read_image(path)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to show
    path = write(tmp_path / "a.png", RGB, exif=exif)
    expected = torch.from_numpy(np.rot90(RGB, -1).copy()).permute(2, 0, 1)
    assert torch.equal(read_image(path), expected)
    assert image_size(path) == (6, 4) and is_rotated(path)
    upright = write(tmp_path / "b.png", RGB)
    assert image_size(upright) == (4, 6) and not is_rotated(upright)


def test_bad_files_are_named(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.jpg", np.zeros((64, 64, 3), np.uint8)).read_bytes()
    cases = {
        "missing.jpg": (None, "no such picture"),
        "text.jpg": (b"hello", "not a picture"),
        "empty.png": (b"", "not a picture"),
        "short.jpg": (whole[: len(whole) - 40], "truncated"),
    }
    for name, (content, message) in cases.items():
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(EyelineError, match=message) as error:
            read_image(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(EyelineError, match="cannot read"):
        read_image(tmp_path)


def test_find_images_sorts_and_filters(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "notes.txt", ".hidden.png", "c.tiff"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in find_images(tmp_path)] == ["a.png", "b.JPG", "c.tiff"]
    with pytest.raises(EyelineError, match="no such folder"):
        find_images(tmp_path / "none")


def photograph(folder: Path, width: int, height: int, **options: object) -> Path:
    """A JPEG of a smooth picture, upright or with an EXIF orientation."""
    x, y = np.meshgrid(np.linspace(0, 6, width), np.linspace(0, 4, height))
    array = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], 2) * 100 + 128
    return write(folder / f"{width}x{height}.jpg", array.astype(np.uint8), quality=95, **options)


@pytest.mark.parametrize(
    ("size", "draft", "scale"),
    [((640, 480), None, 1), ((640, 480), 241, 1), ((640, 480), 240, 2), ((480, 640), 60, 8),
     ((641, 483), 121, 2), ((641, 483), 120, 4), ((641, 483), 10, 8), ((640, 480), 900, 1)],
)  # fmt: skip
def test_a_draft_is_the_picture_made_smaller(
    tmp_path: Path, size: tuple[int, int], draft: int | None, scale: int
) -> None:
    path = photograph(tmp_path, *size)
    width, height = size
    whole, small = read_image(path), read_image(path, draft)
    assert small.shape == (3, -(-height // scale), -(-width // scale))
    assert image_size(path) == (height, width)
    height, width = height // scale, width // scale  # without pixels that are part of one
    expected = whole[:, : height * scale, : width * scale].float()
    expected = expected.unflatten(1, (height, scale)).unflatten(3, (width, scale)).mean((2, 4))
    assert (small[:, :height, :width].float() - expected).abs().max() <= (4 if scale > 1 else 0)


def test_drafts_are_turned_upright_and_only_jpegs_have_them(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = photograph(tmp_path, 320, 200, exif=exif)
    assert read_image(turned, 100).shape == (3, 160, 100)
    assert read_image(write(tmp_path / "a.png", RGB), 2).shape == (3, 4, 6)


# The faster decoder of the extra `fast`


def read_with(decoder: object, path: Path, draft: int | None = None) -> torch.Tensor | str:
    """The picture, or the error, with `decoder` as simplejpeg; None: without."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "simplejpeg", decoder)
        try:
            return read_image(path, draft)
        except EyelineError as error:
            return str(error)


class Counted:
    """simplejpeg, and how many pictures came out of it."""

    def __init__(self) -> None:
        self.module, self.count = pytest.importorskip("simplejpeg"), 0

    def decode_jpeg(self, *args: object, **options: object) -> np.ndarray:
        array = self.module.decode_jpeg(*args, **options)
        self.count += 1
        return array


def test_every_byte_is_that_of_the_plain_decoder(tmp_path: Path) -> None:
    path = photograph(tmp_path, 333, 217)
    plain = np.asarray(Image.open(path).convert("RGB"))
    for decoder in (None, images.simplejpeg):
        image = read_with(decoder, path)
        assert np.array_equal(image.permute(1, 2, 0).numpy(), plain)
        assert image.permute(1, 2, 0).is_contiguous()


@pytest.mark.parametrize("draft", [None, 60, 24, 9])
@pytest.mark.parametrize(
    "options",
    [
        dict(subsampling=0), dict(subsampling=1), dict(subsampling=2), dict(quality=30),
        dict(progressive=True), dict(keep_rgb=True), dict(restart_marker_blocks=3), dict(mode="L"),
        *(dict(orientation=n) for n in range(10)),
    ],
    ids=str,
)  # fmt: skip
def test_both_decoders_give_the_same_bytes(
    tmp_path: Path, options: dict[str, int], draft: int | None
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (131, 203, 3), dtype=np.uint8)
    noise[40:] = noise[40:] // 8 + np.arange(203, dtype=np.uint8)[:, None]
    options = dict(options)
    mode, exif = options.pop("mode", None), Image.Exif()
    exif[0x0112] = options.pop("orientation", 1)
    path = write(tmp_path / "a.jpg", noise, mode, exif=exif, **options)
    fast = Counted()
    image, plain = read_with(fast, path, draft), read_with(None, path, draft)
    assert fast.count == 1 and torch.equal(image, plain)
    assert image.stride() == plain.stride()


def test_what_is_not_plain_is_left_to_pillow(tmp_path: Path) -> None:
    fast = Counted()
    cmyk = write(tmp_path / "cmyk.jpg", RGB.repeat(4, 0).repeat(4, 1), "CMYK")
    tiny = write(tmp_path / "tiny.jpg", RGB)
    for path in (cmyk, tiny, write(tmp_path / "a.png", RGB)):
        assert torch.equal(read_with(fast, path), read_with(None, path))
    assert fast.count == 0


def test_damaged_files_fare_as_with_pillow(tmp_path: Path) -> None:
    whole = photograph(tmp_path, 120, 80).read_bytes()
    rng, fast, errors = np.random.default_rng(0), Counted(), 0
    path = tmp_path / "damaged.jpg"
    for i in range(120):
        content = bytearray(whole[: rng.integers(len(whole))] if i % 2 else whole)
        for at in rng.integers(len(content), size=i % 4) if content else ():
            content[at] = rng.integers(256)
        path.write_bytes(content)
        image, plain = read_with(fast, path), read_with(None, path)
        if isinstance(plain, str):
            assert image == plain
            errors += 1
        else:
            assert torch.equal(image, plain)
    assert fast.count > 10 and errors > 50


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_labels_of_few_bits_are_as_the_file_has_them(tmp_path: Path, bits: int) -> None:
    """Pillow spreads greys of 2 and 4 bits over 0 to 255."""
    values = np.arange(8) % (1 << bits)
    row = np.packbits((values[:, None] >> np.arange(bits)[::-1] & 1).astype(np.uint8).ravel())
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", 8, 1, bits, 0, 0, 0, 0),
        b"IDAT": zlib.compress(b"\0" + row.tobytes()),
        b"IEND": b"",
    }
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks.items()
    )
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    assert read_pixels(tmp_path / "a.png").tolist() == [values.tolist()]


def test_labels_are_no_floats(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.full((2, 2), 1.7, np.float32))
    with pytest.raises(EyelineError, match=r"a\.tif.*floats.*whole numbers"):
        read_pixels(path)
