"""TIFFs of any number of channels, and of 16 bits a channel: what Pillow cuts to 8 or refuses.

After the TIFF 6.0 specification (Adobe, 1992), sec. 3 to 5, 14, 15, 18 and 19. Pillow reads the
directory of tags and undoes the compression; how samples become an array stands here.

Letters   H and W the picture's height and width, C channels ("samples per pixel").
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import IO

import numpy as np
from PIL import Image, TiffImagePlugin

PREFIXES = (b"II*\0", b"MM\0*", b"II+\0")  # little, big endian, BigTIFF
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, ORIENTATION, SAMPLES = (
    256,
    257,
    258,
    259,
    262,
    274,
    277,
)
STRIP_OFFSETS, STRIP_ROWS, STRIP_BYTES, PLANAR, PREDICTOR = 273, 278, 279, 284, 317
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES, EXTRA, FORMAT = 322, 323, 324, 325, 338, 339
LOCATED = (33550, 33922, 34264, 34735)  # GeoTIFF's: pixel scale, tie points, matrix, keys

LOSSLESS = (1, 5, 8, 32773, 32946, 34925, 50000)  # none, LZW, deflate, PackBits, LZMA, zstd
KINDS = {(8, 1): "u1", (16, 1): "u2", (16, 3): "f2", (32, 3): "f4", (64, 3): "f8"}  # bits, format
PHOTOMETRICS = WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, INKS = 0, 1, 2, 5
PREMULTIPLIED, ALPHA = 1, 2  # the first channel besides the colours is alpha


@dataclass(frozen=True)
class Layout:
    """The first page of a TIFF, as its tags describe it."""

    height: int
    width: int
    channels: int
    photometric: int
    orientation: int  # as EXIF has it
    located: bool  # do its tags say where on Earth it lies?
    extra: int  # PREMULTIPLIED, ALPHA or 0
    bits: int  # of a sample, at most
    dtype: np.dtype | None  # of a sample; None: none of KINDS, or channels of several kinds
    compression: int
    predictor: int  # 1 none, 2 differences along a row, 3 the same of floats' bytes
    planar: bool  # channel by channel; else pixel by pixel
    block: tuple[int, int]  # rows and columns of a strip or tile
    tiled: bool
    offsets: tuple[int, ...]  # of the strips or tiles in the file
    counts: tuple[int, ...]  # their bytes


def read_layout(file: IO[bytes]) -> Layout | None:
    """What the tags of an open TIFF say; None where they do not say enough."""
    file.seek(0)
    header = file.read(8)
    if header[:4] not in PREFIXES:
        return None
    if header[2:3] == b"+":  # BigTIFF
        header += file.read(8)
    tags = TiffImagePlugin.ImageFileDirectory_v2(header)
    file.seek(tags.next)
    tags.load(file)
    tiled = TILE_WIDTH in tags
    rows, columns = (TILE_HEIGHT, TILE_WIDTH) if tiled else (STRIP_ROWS, WIDTH)
    offsets, counts = (TILE_OFFSETS, TILE_BYTES) if tiled else (STRIP_OFFSETS, STRIP_BYTES)
    bits = set(tags.get(BITS, (1,)))
    formats = set(tags.get(FORMAT, (1,)))
    kind = KINDS.get((*bits, *formats)) if len(bits) == len(formats) == 1 else None
    try:
        height, width = int(tags[HEIGHT]), int(tags[WIDTH])
        return Layout(
            height=height,
            width=width,
            channels=int(tags.get(SAMPLES, 1)),
            photometric=int(tags.get(PHOTOMETRIC, BLACK_IS_ZERO)),
            orientation=int(tags.get(ORIENTATION, 1)),
            located=any(tag in tags for tag in LOCATED),
            extra=int(tags.get(EXTRA, (0,))[0]),
            bits=max(bits),
            dtype=np.dtype(("<" if header[:2] == b"II" else ">") + kind) if kind else None,
            compression=int(tags.get(COMPRESSION, 1)),
            predictor=int(tags.get(PREDICTOR, 1)),
            planar=tags.get(PLANAR, 1) == 2,
            block=(int(tags.get(rows, height)), int(tags[columns])),
            tiled=tiled,
            offsets=tuple(tags[offsets]),
            counts=tuple(tags[counts]),
        )
    except (KeyError, TypeError):  # not there, or of another type
        return None


def read_samples(file: IO[bytes], layout: Layout) -> np.ndarray:
    """(H, W, C) of a page, in the machine's byte order: uint8, uint16 or floats as they are stored.

    Raises ValueError where samples are of a kind, or packed in a way, that is not known here, or
    where the file ends before them.
    """
    p = layout
    if p.dtype is None:
        raise ValueError("it is not of 8 or 16 bits without sign, or floats")
    if p.compression not in LOSSLESS or p.predictor not in (1, 2, 3):
        raise ValueError(f"compression {p.compression} with predictor {p.predictor} is not known")
    rows, columns = (p.block[0] if p.tiled else min(p.block[0], p.height)), p.block[1]
    if min(p.height, p.width, p.channels, rows, columns) < 1:
        raise ValueError("a size of 0")
    down, across = -(-p.height // rows), -(-p.width // columns)
    planes, depth = (p.channels, 1) if p.planar else (1, p.channels)  # depth: channels of a block
    blocks = planes * down * across
    if (listed := min(len(p.offsets), len(p.counts))) < blocks:
        raise ValueError(f"{listed} of {blocks} strips or tiles are listed")
    file.seek(0, io.SEEK_END)
    end = file.tell()
    if max(map(sum, zip(p.offsets[:blocks], p.counts[:blocks], strict=True))) > end:
        raise ValueError(f"truncated: its pixels go on behind the file's {end} bytes")
    out = np.empty((p.height, p.width, p.channels), p.dtype.newbyteorder("="))
    for i in range(blocks):
        plane, place = divmod(i, down * across)
        top, left = place // across * rows, place % across * columns
        high = rows if p.tiled else min(rows, p.height - top)  # a tile is always whole
        file.seek(p.offsets[i])
        data = _unpacked(file.read(p.counts[i]), p, high * columns * depth * p.dtype.itemsize)
        block = _samples(data, p, (high, columns, depth))
        target = out[top : top + high, left : left + columns, plane : plane + depth]
        target[...] = block[: target.shape[0], : target.shape[1]]
    if p.photometric == WHITE_IS_ZERO and out.dtype.kind == "u":
        np.subtract(np.iinfo(out.dtype).max, out, out=out)
    return out


def straight(values: np.ndarray) -> np.ndarray:
    """(H, W, C) whose colours were multiplied by their alpha, the last channel, without that."""
    whole = 1 if values.dtype.kind == "f" else np.iinfo(values.dtype).max
    colours, alpha = np.split(values.astype(np.float64), [-1], axis=2)
    colours = np.minimum(colours * whole / np.maximum(alpha, 1e-9), whole)
    colours = colours if whole == 1 else colours.round()
    return np.concatenate([colours.astype(values.dtype), values[..., -1:]], 2)


def _unpacked(data: bytes, layout: Layout, size: int) -> bytes:
    """The `size` bytes of a strip or tile: Pillow reads them as a grey TIFF one row high."""
    if layout.compression == 1:
        if len(data) < size:
            raise ValueError(f"a strip or tile has {len(data)} of {size} bytes")
        return data[:size]
    values = {
        WIDTH: size, HEIGHT: 1, BITS: 8, COMPRESSION: layout.compression, PHOTOMETRIC: 1,
        STRIP_OFFSETS: 122, SAMPLES: 1, STRIP_ROWS: 1, STRIP_BYTES: len(data),
    }  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items())
    head = b"II*\0" + struct.pack("<IH", 8, len(values)) + entries + struct.pack("<I", 0)
    with Image.open(io.BytesIO(head + data), formats=["TIFF"]) as image:
        return image.tobytes()


def _samples(data: bytes, layout: Layout, shape: tuple[int, int, int]) -> np.ndarray:
    """Unpacked bytes as (rows, columns, channels), with the predictor undone (sec. 14)."""
    assert layout.dtype is not None
    size, (rows, columns, depth) = layout.dtype.itemsize, shape
    if layout.predictor == 3:  # of a row first all highest bytes, then all next ones ...
        bytes_ = np.frombuffer(data, np.uint8).reshape(rows, size * columns, depth)
        bytes_ = np.cumsum(bytes_, 1, dtype=np.uint8).reshape(rows, size, columns * depth)
        values = np.ascontiguousarray(bytes_.swapaxes(1, 2)).view(f">f{size}")
        return values.reshape(shape)
    values = np.frombuffer(data, layout.dtype).reshape(shape)
    if layout.predictor == 2:
        whole = values.astype(layout.dtype.newbyteorder("=")).view(f"u{size}")
        values = np.cumsum(whole, 1, dtype=whole.dtype).view(layout.dtype.newbyteorder("="))
    return values
