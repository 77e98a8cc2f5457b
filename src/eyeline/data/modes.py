"""What a picture's pixels become: of 8 and 16 bits and floats, grey, colours and other channels.

Letters   H and W the picture's height and width, C its channels.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import IO

import numpy as np
from PIL import ExifTags, Image, ImageFile, PngImagePlugin

from eyeline.errors import EyelineError

# Turns of (H, W, C) by which an EXIF orientation comes upright; 1 is upright.
TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: x.transpose(1, 0, 2)[:, ::-1],
    7: lambda x: x.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda x: x.transpose(1, 0, 2)[::-1],
}
STRAIGHT = {"RGBa": "RGBA", "La": "LA"}  # of colours that were multiplied by their alpha


def orientation(image: Image.Image, file: IO[bytes]) -> int:
    """1 to 8, as EXIF has it; 1, upright, where it has none or makes no sense. Decodes nothing."""
    if image.format == "PNG" and (data := _png_exif(file)):
        image.info["exif"] = data
    # The plain method: that of a PNG decodes all of it, for the EXIF data may stand at its end.
    value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    return value if value in range(1, 9) else 1


def _png_exif(file: IO[bytes]) -> bytes | None:
    """The eXIf chunk of a PNG, wherever it stands."""
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        if name == b"eXIf":
            return b"Exif\0\0" + file.read(length)
        file.seek(length + 4, io.SEEK_CUR)  # and the chunk's checksum
    return None


def turned(array: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W, C) turned upright, in memory of its own order."""
    turn = TURNS.get(orientation)
    return np.ascontiguousarray(turn(array)) if turn else array


def to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL picture as RGB, 8 bits a channel, as `read_image` does it.

    Raises:
        EyelineError: pixels of 32 bits that are neither 0 to 65535 nor floats in [0, 1].
    """
    if image.mode[0] in "IF":  # 16 bits (which "I" holds in 32), and floats
        return Image.fromarray(to_bytes(np.asarray(image))).convert("RGB")
    if "transparency" in image.info:
        image = image.convert("RGBA")
    image = image.convert(STRAIGHT.get(image.mode, image.mode))
    return image if image.mode == "RGB" else image.convert("RGB")


def to_channels(image: Image.Image, channels: int) -> np.ndarray:
    """(H, W, channels) of a PIL picture: grey for 1, RGB for 3, else the channels that it has."""
    if channels == 3:
        return np.array(to_rgb(image))  # a copy that torch may own
    if channels == 1:
        grey = image.mode in ("L", "1", "LA", "La") or image.mode[0] in "IF"
        image = image if grey else to_rgb(image)
        values = np.array(image if image.mode[0] in "IF" else image.convert("L"))[..., None]
    else:
        if image.mode in ("P", "PA"):
            image = image.convert("RGBA")
        values = np.array(image.convert(STRAIGHT.get(image.mode, image.mode)))
        values = values.reshape(*values.shape[:2], -1)
    return fitted(values, channels)


def fitted(values: np.ndarray, channels: int) -> np.ndarray:
    """(H, W, C) of uint8, uint16 or floats, as (H, W, channels).

    Three channels are uint8. With any other number nothing is rounded: uint8 stays, the rest
    becomes float32 in [0, 1].

    Raises EyelineError where C is another number (but grey and RGB become one another), or where
    floats are not in [0, 1].
    """
    have = values.shape[2]
    if have != channels and {have, channels} != {1, 3}:
        raise EyelineError(
            f"it has {have} channel{'s' * (have != 1)}, not {channels}; to read such pictures set "
            f"channels={have} (in a recipe data.channels={have})"
        )
    if have == channels and channels != 3:
        return to_values(values)
    if have == 3 == channels:
        return to_bytes(values)
    if channels == 3:
        return np.ascontiguousarray(np.broadcast_to(to_bytes(values), (*values.shape[:2], 3)))
    return np.array(Image.fromarray(to_bytes(values)).convert("L"))[..., None]


def to_bytes(values: np.ndarray) -> np.ndarray:
    """uint8 of uint8, of integers from 0 to 65535, or of floats from 0 to 1, rounded."""
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind == "f":
        _check_range(values, 1)
        return (values * 255 + 0.5).astype(np.uint8)
    _check_range(values, 65535)
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def to_values(values: np.ndarray) -> np.ndarray:
    """uint8 as it is; integers from 0 to 65535, and floats from 0 to 1, as float32 from 0 to 1."""
    if values.dtype == np.uint8:
        return values
    whole = 1 if values.dtype.kind == "f" else 65535
    _check_range(values, whole)
    return values.astype(np.float32) / np.float32(whole)


def _check_range(values: np.ndarray, high: int) -> None:
    if values.size and not (values.min() >= 0 and values.max() <= high):  # NaN is neither
        raise EyelineError(f"pixels from {values.min()} to {values.max()}, not 0 to {high}")


def is_deep(image: Image.Image) -> bool:
    """Is it a PNG of 16 bits a channel, of several channels? Pillow would drop the lower bits."""
    tiles = image.tile if isinstance(image, PngImagePlugin.PngImageFile) else []
    return bool(tiles) and str(tiles[0].args) in ("RGB;16B", "RGBA;16B", "LA;16B")


def read_deep(image: ImageFile.ImageFile, file: IO[bytes]) -> np.ndarray:
    """(H, W, C) uint16 of such a PNG, C 2 to 4; Pillow decodes, its unpacking is told otherwise.

    To unpack a channel it takes the higher of two bytes; told that the lower comes first, which is
    not so, it takes the other. Two of two bytes look like a pixel of four.
    """
    raw = str(image.tile[0].args)
    if raw == "LA;16B":
        image.tile = [tile._replace(args="RGBA") for tile in image.tile]
        data = np.array(image)  # (H, W, 4): the bytes of grey, the bytes of alpha
        return data.view(">u2").astype(np.uint16)
    high = np.array(image).astype(np.uint16)
    file.seek(0)
    with PngImagePlugin.PngImageFile(file) as again:
        again.tile = [tile._replace(args=raw.replace("16B", "16L")) for tile in again.tile]
        low = np.array(again)
    deep: np.ndarray = high << 8 | low
    return deep
