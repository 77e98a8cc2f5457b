"""Picture files as tensors. What is done with each kind of file stands in docs/data.md."""

from __future__ import annotations

import importlib
import logging
import os
import struct
import tokenize
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError, features
from torch import Tensor

from eyeline.data import modes, tiff
from eyeline.errors import EyelineError

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".avif")
)
# Told by a file's first bytes, whatever its name is. Pillow knows more formats; some run other
# programs, some take any bytes for a picture.
FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "PPM", "AVIF", "JPEG2000")
for _plugin in ("Jpeg", "Png", "Tiff", "WebP", "Gif", "Bmp", "Ppm", "Avif", "Jpeg2K"):
    importlib.import_module(f"PIL.{_plugin}ImagePlugin")  # which adds it to Image.OPEN
NPY = b"\x93NUMPY"

TURBO = features.check_feature("libjpeg_turbo")  # is that Pillow's decoder?

MAX_PIXELS = 178_956_970  # as many as Pillow allows
LIMIT = "EYELINE_MAX_PIXELS"  # the environment variable that sets another number

# What is wrong with a file is said by an error, once; Pillow's remarks would stand between.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())  # else they go to stderr

# What Pillow and numpy raise for files that are no picture, cut short or damaged.
DAMAGED = (
    OSError, SyntaxError, ValueError, EOFError, TypeError, IndexError, KeyError, OverflowError,
    MemoryError, RuntimeError, struct.error, zlib.error, tokenize.TokenError,
)  # fmt: skip


def read_image(path: str | Path, draft: int | None = None, channels: int = 3) -> Tensor:
    """Read a picture as (C, H, W), turned upright as its EXIF orientation says.

    With three channels, which is the default, it is uint8 RGB of any file: grey, palette and CMYK
    become RGB; 16 bits and floats are scaled to 8; an alpha channel is dropped, as most readers do.
    With one it is grey. With any other number the file's own channels must be as many. Of an
    animation the first frame is taken, of a document the first page. In memory the values of a
    pixel lie side by side, as files have them and as resizing is fastest.

    JPEGs are decoded by simplejpeg where it is installed (the extra `fast`), in three quarters of
    the time. Both decoders are libjpeg-turbo and set alike, so every byte is the same, and training
    is too, with it or without.

    Args:
        draft: decode a JPEG at 1/2, 1/4 or 1/8 of its size where its shorter side then still has
            at least so many pixels. It is much faster, for the finest details are never computed;
            a side is rounded up. Other formats come as they are.
        channels: if not three, values keep their precision: uint8 stays, 16 bits and floats
            become float32 in [0, 1].

    Raises:
        EyelineError: the file is missing, no picture, damaged, of more than `pixel_limit()`
            pixels, or of another number of channels.
    """
    with _opened(path) as file:
        header = _header(file)
        if fault := size_fault(*header.upright):  # before anything is decoded
            raise ValueError(fault)
        if header.array is not None:
            array = modes.fitted(np.array(header.array, order="C"), channels)
        elif header.layout is not None and _is_for_us(header.layout):
            array = modes.turned(_from_tiff(file, header.layout, channels), header.orientation)
        else:
            array = _decoded(file, header, draft, channels)
    return torch.from_numpy(array).permute(2, 0, 1)


def _decoded(file: IO[bytes], header: Header, draft: int | None, channels: int) -> np.ndarray:
    """Upright (H, W, channels) of a file that Pillow reads."""
    image = header.image or _identified(file)
    if modes.is_deep(image):
        values = modes.read_deep(image, file)
        colours = 1 if values.shape[2] == 2 else 3
        values = values[..., :colours] if channels in (1, 3) else values
        return modes.turned(modes.fitted(values, channels), header.orientation)
    if draft is not None:
        image.draft(None, (draft, draft))
    if channels == 3:
        if (fast := _decoded_fast(image, file)) is not None:
            return modes.turned(fast, header.orientation)
        if image.format == "JPEG" and image.mode == "RGB" and TURBO:
            # Pillow keeps four bytes a pixel: let the decoder write four, which saves a pass.
            image.tile = [tile._replace(args=("RGBX", "")) for tile in image.tile]
    ImageOps.exif_transpose(image, in_place=True)
    return modes.to_channels(image, channels)


def _decoded_fast(image: ImageFile.ImageFile, file: IO[bytes]) -> np.ndarray | None:
    """What Pillow gives, not turned yet, by simplejpeg. None where that is not sure to be the same:
    where one of the decoders is missing, of anything but a plain colour or grey JPEG, and of
    damaged ones, about which Pillow has the last word. So too of the tiniest, of which two scales
    have one size.
    """
    if simplejpeg is None or not TURBO or image.format != "JPEG":
        return None
    if image.mode not in ("RGB", "L") or min(image.size) < 8:
        return None
    file.seek(0)
    try:
        # In the scale that has the size of Pillow's draft.
        found: np.ndarray = simplejpeg.decode_jpeg(
            file.read(), min_height=image.height, min_width=image.width
        )
    except ValueError:
        return None
    return found


def _is_for_us(layout: tiff.Layout) -> bool:
    """Is it of plain samples? Of more than 8 bits or 4 channels Pillow would read a part, or none;
    it knows palettes, JPEGs within a TIFF, and fewer bits."""
    if layout.dtype is None:
        return layout.bits > 8  # to be refused
    return layout.photometric in tiff.PHOTOMETRICS and layout.compression in tiff.LOSSLESS


def _from_tiff(file: IO[bytes], layout: tiff.Layout, channels: int) -> np.ndarray:
    values = tiff.read_samples(file, layout)
    if channels in (1, 3):
        if layout.photometric == tiff.INKS:
            inks = Image.fromarray(modes.to_bytes(values[..., :4]), "CMYK")
            return modes.to_channels(inks, channels)
        colours = 3 if layout.photometric == tiff.RGB else 1
        alpha = layout.extra in (tiff.PREMULTIPLIED, tiff.ALPHA) or colours == 3
        if alpha and layout.channels == colours + 1:
            if layout.extra == tiff.PREMULTIPLIED:
                values = tiff.straight(values)
            values = values[..., :colours]
    return modes.fitted(values, channels)


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) as `read_image` gives them, from the file's header alone."""
    with _opened(path) as file:
        return _header(file).upright


def is_rotated(path: str | Path) -> bool:
    """Does the EXIF orientation exchange width and height?"""
    with _opened(path) as file:
        return _header(file).orientation >= 5


def read_pixels(path: str | Path, colours: bool = False) -> np.ndarray:
    """The values of a picture of labels, as the file has them: (H, W) integers, grey values or
    places in the palette, or (H, W, 3) uint8 of colours.

    Args:
        colours: give colours of grey pictures and of those with a palette too.

    Raises:
        EyelineError: the file is missing, no picture, or damaged.
    """
    with _opened(path) as file:
        image = _identified(file)
        if fault := size_fault(image.height, image.width):
            raise ValueError(fault)
        if image.mode == "F":
            raise ValueError("its values are floats, and those of labels are whole numbers")
        if colours or image.mode not in ("1", "L", "P", "I", "I;16", "I;16B"):
            return np.array(image.convert("RGB"))
        unit = _unit(image)  # before decoding, which forgets it
        return np.array(image) // unit if unit > 1 else np.array(image)


def _unit(image: ImageFile.ImageFile) -> int:
    """What Pillow makes of a grey of 1 where a pixel has 2 or 4 bits, which it spreads over 8."""
    raw = image.tile[0].args if image.tile else ""
    name = str(raw[0] if isinstance(raw, tuple) else raw)
    return 85 if name.startswith("L;2") else 17 if name.startswith("L;4") else 1


def find_images(folder: str | Path) -> list[Path]:
    """The picture files directly in a folder, sorted by name."""
    folder = Path(folder)
    if not os.path.isdir(folder):
        raise EyelineError(f"{folder}: no such folder")
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def pixel_limit() -> int:
    """Pictures of more pixels are not read: MAX_PIXELS, or what the environment sets.

    Raises:
        EyelineError: EYELINE_MAX_PIXELS is no number.
    """
    text = os.environ.get(LIMIT)
    if not text:
        return MAX_PIXELS
    if not text.isdecimal() or int(text) == 0:
        raise EyelineError(f"{LIMIT} is {text!r}, not a number of pixels")
    limit = int(text)
    if Image.MAX_IMAGE_PIXELS is not None and limit > 2 * Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = limit  # some of Pillow's decoders look for themselves
    return limit


@dataclass(frozen=True)
class Header:
    """What the first bytes of a picture tell."""

    height: int  # as stored
    width: int
    orientation: int = 1
    layout: tiff.Layout | None = None  # of a TIFF
    array: np.ndarray | None = None  # (H, W, C) of a .npy, not read yet
    image: ImageFile.ImageFile | None = None  # of anything else, not decoded yet

    @property
    def upright(self) -> tuple[int, int]:
        size = (self.height, self.width)
        return size[::-1] if self.orientation >= 5 else size


def _header(file: IO[bytes]) -> Header:
    start = file.read(len(NPY))
    if start == NPY:
        return _npy_header(file)
    if start[:4] in tiff.PREFIXES and (layout := tiff.read_layout(file)):
        turn = layout.orientation if layout.orientation in range(1, 9) else 1
        return Header(layout.height, layout.width, turn, layout)
    image = _identified(file)
    return Header(image.height, image.width, modes.orientation(image, file), image=image)


def _npy_header(file: IO[bytes]) -> Header:
    """Of an array (H, W) or (H, W, C) of uint8, uint16 or floats. Objects, which could run code,
    are not read."""
    array = np.load(file.name, mmap_mode="r", allow_pickle=False)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(f"an array of shape {array.shape} is no picture (H, W) or (H, W, C)")
    if array.dtype.kind != "f" and array.dtype.newbyteorder("=") not in (np.uint8, np.uint16):
        raise ValueError(f"an array of {array.dtype}; give uint8, uint16, or floats from 0 to 1")
    return Header(array.shape[0], array.shape[1], array=array)


def _identified(file: IO[bytes]) -> ImageFile.ImageFile:
    """The open picture. Unlike Image.open it takes FORMATS alone, and leaves the size to us."""
    file.seek(0)
    prefix = file.read(16)
    for name in FORMATS:
        factory, accept = Image.OPEN[name]
        if (known := accept is None or accept(prefix)) and not isinstance(known, str):
            file.seek(0)
            try:
                return factory(file, file.name)
            except (SyntaxError, IndexError, TypeError, struct.error):
                break  # Pillow's way to say that it is not of the format after all
    raise UnidentifiedImageError


def size_fault(height: int, width: int) -> str | None:
    """In words, that pictures of this size are not read, for they would fill the memory."""
    count, limit = height * width, pixel_limit()
    if count <= limit:
        return None
    return (
        f"{width}x{height} are {count:,} pixels, more than the limit of {limit:,}; "
        f"set the environment variable {LIMIT}={count} to read it"
    )


@contextmanager
def _opened(path: str | Path) -> Iterator[IO[bytes]]:
    """The open file; whatever goes wrong in reading it becomes one line that names it."""
    try:
        with open(path, "rb") as file:
            yield file
    except FileNotFoundError:
        raise EyelineError(f"{path}: no such picture") from None
    except UnidentifiedImageError:
        raise EyelineError(f"{path}: not a picture of a known format") from None
    except Image.DecompressionBombError as error:
        raise EyelineError(f"{path}: {error} Set {LIMIT} to read it") from None
    except DAMAGED as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise EyelineError(
            f"{path}: cannot read the picture: {reason or type(error).__name__}"
        ) from None
