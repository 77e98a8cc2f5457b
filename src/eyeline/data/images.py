"""Picture files as tensors."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError, features
from torch import Tensor

from eyeline.errors import EyelineError

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".avif")
)

TURBO = features.check_feature("libjpeg_turbo")  # its decoder writes pixels of four bytes too

# What Pillow raises for files that are no picture, cut short or damaged.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def read_image(path: str | Path, draft: int | None = None) -> Tensor:
    """Read a picture as uint8 RGB (3, H, W), turned upright as its EXIF orientation says.

    Grey, palette and CMYK become RGB; 16 bits are scaled to 8; an alpha channel is dropped, as
    most readers do; of an animation the first frame is taken. In memory the three values of a
    pixel lie side by side, as files have them and as resizing is fastest.

    Args:
        draft: decode a JPEG at 1/2, 1/4 or 1/8 of its size where its shorter side then still has
            at least so many pixels. It is much faster, for the finest details are never computed;
            a side is rounded up. Other formats come as they are.

    Raises:
        EyelineError: the file is missing, no picture, or damaged.
    """
    with _opened(path) as image:
        if draft is not None:
            image.draft(None, (draft, draft))
        if image.format == "JPEG" and image.mode == "RGB" and TURBO:
            # Pillow keeps four bytes a pixel: let the decoder write four, which saves a pass.
            image.tile = [tile._replace(args=("RGBX", "")) for tile in image.tile]
        ImageOps.exif_transpose(image, in_place=True)
        array = np.array(to_rgb(image))  # (H, W, 3), a copy that torch may own
    return torch.from_numpy(array).permute(2, 0, 1)


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) as `read_image` gives them, from the file's header alone."""
    with _opened(path) as image:
        width, height = image.size
        return (width, height) if _lies_on_its_side(image) else (height, width)


def is_rotated(path: str | Path) -> bool:
    """Does the EXIF orientation exchange width and height?"""
    with _opened(path) as image:
        return _lies_on_its_side(image)


def find_images(folder: str | Path) -> list[Path]:
    """The picture files directly in a folder, sorted by name."""
    folder = Path(folder)
    if not folder.is_dir():
        raise EyelineError(f"{folder}: no such folder")
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


@contextmanager
def _opened(path: str | Path) -> Iterator[ImageFile.ImageFile]:
    """The open file; whatever goes wrong in reading it becomes one line that names it."""
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError:
        raise EyelineError(f"{path}: no such picture") from None
    except UnidentifiedImageError:
        raise EyelineError(f"{path}: not a picture of a known format") from None
    except _DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise EyelineError(f"{path}: cannot read the picture: {reason}") from None


def _lies_on_its_side(image: Image.Image) -> bool:
    return bool(image.getexif().get(ExifTags.Base.Orientation, 1) >= 5)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL picture as RGB, 8 bits a channel, as `read_image` does it.

    Raises:
        EyelineError: pixels of 32 bits that are neither 0 to 65535 nor floats in [0, 1].
    """
    if image.mode.startswith("I"):  # 16 bits; "I" holds them in 32
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise EyelineError(f"pixels from {values.min()} to {values.max()}, not 0 to 65535")
        return Image.fromarray((values / 257 + 0.5).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        values = np.asarray(image)
        if not (values.min() >= 0 and values.max() <= 1):
            raise EyelineError(f"pixels from {values.min()} to {values.max()}, not 0 to 1")
        return Image.fromarray((values * 255 + 0.5).astype(np.uint8)).convert("RGB")
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")
