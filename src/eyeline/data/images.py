"""Picture files as tensors."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError, features
from torch import Tensor

from eyeline.errors import EyelineError

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".avif")
)

TURBO = features.check_feature("libjpeg_turbo")  # is that Pillow's decoder?

# Turns of (H, W, 3) by which an EXIF orientation comes upright; 1 is upright.
TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: x.transpose(1, 0, 2)[:, ::-1],
    7: lambda x: x.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda x: x.transpose(1, 0, 2)[::-1],
}

# What Pillow raises for files that are no picture, cut short or damaged.
DAMAGED = (
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

    JPEGs are decoded by simplejpeg where it is installed (the extra `fast`), in three quarters of
    the time. Both decoders are libjpeg-turbo and set alike, so every byte is the same, and training
    is too, with it or without.

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
        array = _decoded_fast(image)
        if array is None:
            array = _decoded(image)
    return torch.from_numpy(array).permute(2, 0, 1)


def _decoded(image: ImageFile.ImageFile) -> np.ndarray:
    """Upright RGB (H, W, 3) of an open file of any kind."""
    if image.format == "JPEG" and image.mode == "RGB" and TURBO:
        # Pillow keeps four bytes a pixel: let the decoder write four, which saves a pass.
        image.tile = [tile._replace(args=("RGBX", "")) for tile in image.tile]
    ImageOps.exif_transpose(image, in_place=True)
    return np.array(to_rgb(image))  # a copy that torch may own


def _decoded_fast(image: ImageFile.ImageFile) -> np.ndarray | None:
    """What `_decoded` gives, by simplejpeg. None where that is not sure to be the same: where one
    of the decoders is missing, of anything but a plain colour or grey JPEG, and of damaged ones,
    about which Pillow has the last word. So too of the tiniest, of which two scales have one size.
    """
    if simplejpeg is None or not TURBO or image.format != "JPEG":
        return None
    if image.mode not in ("RGB", "L") or min(image.size) < 8:
        return None
    image.fp.seek(0)
    try:
        # In the scale that has the size of Pillow's draft.
        array = simplejpeg.decode_jpeg(
            image.fp.read(), min_height=image.height, min_width=image.width
        )
    except ValueError:
        return None
    turn = TURNS.get(_orientation(image))
    return np.ascontiguousarray(turn(array)) if turn else array


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
    except DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise EyelineError(f"{path}: cannot read the picture: {reason}") from None


def _orientation(image: Image.Image) -> int:
    """1 to 8, as EXIF has it; 1, upright, where it has none or makes no sense."""
    value = image.getexif().get(ExifTags.Base.Orientation, 1)
    return value if value in range(1, 9) else 1


def _lies_on_its_side(image: Image.Image) -> bool:
    return _orientation(image) >= 5


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
