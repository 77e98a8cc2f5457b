"""Pictures read row by row, and maps of classes written so, with rasterio (the extra `geo`); those
that fit into memory also without it.

Letters   H and W the picture's height and width, C its channels as the model takes them.
"""

from __future__ import annotations

import json
import os
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eyeline.data import tiff
from eyeline.data.formats.legend import VOID
from eyeline.data.images import DAMAGED, image_size, is_rotated, pixel_limit, read_image
from eyeline.errors import EyelineError
from eyeline.inference.draw_map import palette_of

CACHE = 64  # MB of blocks that GDAL keeps; by itself it takes a twentieth of the machine's memory
BLOCK = 256  # rows and columns of a block in the files that are written
KEPT = ("uint8", "uint16", "int16", "float32")  # others become float32 when they are read
EXTRA = "install it: pip install 'eyeline[geo]'"
TIFFS, SUFFIXES = (".tif", ".tiff"), (".tif", ".tiff", ".png")  # of what is written
PALETTE = 3  # photometric: pixels are numbers of colours
JP2 = b"\0\0\0\x0cjP  "  # how a JPEG 2000 begins that may say where it lies


def import_rasterio() -> Any:
    try:
        import rasterio
    except ImportError:
        raise EyelineError(f"it needs the package rasterio; {EXTRA}") from None
    warnings.filterwarnings("ignore", category=rasterio.errors.NotGeoreferencedWarning)
    return rasterio


def has_rasterio() -> bool:
    try:
        import_rasterio()
    except EyelineError:
        return False
    return True


@dataclass
class Whole:
    """A picture in memory."""

    image: Tensor  # (C, H, W)
    place: dict[str, Any] = field(default_factory=dict)

    @property
    def height(self) -> int:
        return int(self.image.shape[1])

    @property
    def width(self) -> int:
        return int(self.image.shape[2])

    def rows(self, top: int, bottom: int) -> Tensor:
        return self.image[:, top:bottom]

    def valid(self, top: int, bottom: int) -> np.ndarray | None:
        return None

    def values(self, images: Tensor) -> Tensor:
        return images


class Raster:
    """A file that rasterio has opened, read from its top to its bottom, each row once.

    Args:
        file: a rasterio dataset.
        bands: from 1, as many as the model takes channels.
        value_range: the values that become 0 and 1; None: uint8 as they are.
    """

    def __init__(
        self, file: Any, bands: Sequence[int], value_range: tuple[float, float] | None
    ) -> None:
        self.file, self.bands, self.value_range = file, list(bands), value_range
        self.height, self.width = int(file.height), int(file.width)
        flags = import_rasterio().enums.MaskFlags
        self.masked = any(flags.all_valid not in found for found in file.mask_flag_enums)
        self.white_is_zero = file.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES"
        self.top = self.bottom = 0  # of the rows that are kept
        self.kept: Tensor | None = None  # (C, rows, W), as stored
        self.known: np.ndarray | None = None  # (rows, W) bool: not nodata; None: all

    @property
    def place(self) -> dict[str, Any]:
        return place_of(self.file)

    def rows(self, top: int, bottom: int) -> Tensor:
        """(C, bottom - top, W) as stored, nodata as the least of the range."""
        if self.kept is None or top > self.bottom:
            self.kept, self.known = self._read(top, bottom)
        else:
            kept, known = self.kept[:, top - self.top :], self.known
            fresh, valid = self._read(self.bottom, bottom)
            self.kept = torch.cat([kept, fresh], 1)
            if known is not None and valid is not None:
                self.known = np.concatenate([known[top - self.top :], valid])
        self.top, self.bottom = top, bottom
        return self.kept

    def valid(self, top: int, bottom: int) -> np.ndarray | None:
        """(bottom - top, W) bool of rows that are kept; None: all are."""
        return None if self.known is None else self.known[top - self.top : bottom - self.top]

    def values(self, images: Tensor) -> Tensor:
        """What the network is given: uint8, or float32 in [0, 1]."""
        if self.value_range is None:
            return images
        low, high = self.value_range
        return images.to(torch.float32).sub_(low).div_(high - low).clamp_(0, 1)

    def _read(self, top: int, bottom: int) -> tuple[Tensor, np.ndarray | None]:
        window = import_rasterio().windows.Window(0, top, self.width, bottom - top)
        with _readable(self.file.name):
            values = self.file.read(self.bands, window=window)
            valid = self.file.dataset_mask(window=window) > 0 if self.masked else None
        if self.white_is_zero and values.dtype.kind == "u":  # as `read_image` does it
            values = np.iinfo(values.dtype).max - values
        if values.dtype.name not in KEPT:
            values = values.astype(np.float32)
        if values.dtype.kind == "f":
            finite = np.isfinite(values).all(0)
            valid = finite if valid is None else valid & finite
        if valid is not None and not valid.all():
            values[:, ~valid] = 0 if self.value_range is None else self.value_range[0]
        return torch.from_numpy(values), valid


def place_of(file: Any) -> dict[str, Any]:
    """Where on Earth a file of rasterio's lies, as rasterio writes it."""
    points, system = file.gcps
    found: dict[str, Any] = {"rpcs": file.rpcs} if file.rpcs else {}
    if points:
        return found | {"gcps": points, "crs": system}
    if file.crs is not None:
        found["crs"] = file.crs
    if not file.transform.is_identity:
        found["transform"] = file.transform
    return found


def is_located(path: Path) -> bool:
    """Does a picture say where on Earth it lies, by itself or by a file beside it?

    A GeoTIFF's tags tell; of all else rasterio does, if it is there. It is slow to ask, so only a
    JPEG 2000 is, or where there is a world file, or one of GDAL's own.
    """
    layout = _layout(path)
    if layout is not None and layout.located:
        return True
    with path.open("rb") as file:
        start = file.read(len(JP2))
    root, end = os.path.splitext(path)
    beside = (f"{path}.aux.xml", f"{root}{end}w", f"{root}{end[:2]}{end[-1:]}w", f"{root}.wld")
    return (start == JP2 or any(map(os.path.exists, beside))) and bool(_asked(path, place_of))


def is_raster(path: Path) -> bool:
    """Does rasterio open it? Without rasterio no file is one."""
    return bool(_asked(path, lambda file: True))


def _asked(path: Path, question: Callable[[Any], Any]) -> Any:
    """The answer of a file that rasterio opens; None where it is not there, or does not."""
    if not has_rasterio():
        return None
    rasterio = import_rasterio()
    try:
        # Else each file's folder is listed.
        with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="TRUE"), rasterio.open(path) as file:
            return question(file)
    except rasterio.errors.RasterioError:
        return None


@contextmanager
def opened(
    path: str | Path,
    channels: int = 3,
    bands: Sequence[int] | None = None,
    value_range: tuple[float, float] | None = None,
) -> Iterator[Whole | Raster]:
    """A picture for a model of so many channels.

    TIFFs, pictures that say where on Earth they lie, and what Pillow does not know or what has more
    pixels than `pixel_limit()`, are read by rows, with rasterio; other pictures, and without
    rasterio TIFFs that say nothing of a place, whole, as `read_image` does it. The values are the
    same either way.

    Args:
        bands: the file's bands that are the channels, from 1; by default all but alpha, which must
            be as many.
        value_range: the values that are 0 and 1 for the model; what is beyond is cut off. Only
            uint8 needs none.

    Raises:
        EyelineError: the file is missing or damaged, its bands or values are not those of the
            model, or it needs rasterio, which is not there.
    """
    path = Path(path)
    if not path.is_file():
        raise EyelineError(f"{path}: no such picture")
    if value_range is not None and not value_range[0] < value_range[1]:
        raise EyelineError(f"value_range is the values of 0 and 1, not {value_range}")
    why = _why_by_rows(path, bands is not None or value_range is not None)
    if why is None:
        yield Whole(read_image(path, channels=channels))
        return
    if not has_rasterio():
        raise EyelineError(f"{path}: {why}; that needs the package rasterio; {EXTRA}")
    _check_tags(path)
    rasterio = import_rasterio()
    with rasterio.Env(GDAL_CACHEMAX=CACHE):
        with _readable(path):
            file = rasterio.open(path)
        with file:
            chosen = _bands(path, file, channels, bands)
            _check_values(path, file, chosen, value_range)
            yield Raster(file, chosen, value_range)


def _why_by_rows(path: Path, asked: bool) -> str | None:
    """In words, why a file is not to be read whole; None: it is."""
    if asked:
        return "bands or value_range are given"
    if is_located(path):
        return "it says where on Earth it lies"
    if (layout := _layout(path)) is not None:
        plain = layout.photometric != PALETTE and not _unlike(layout)
        return "it is a TIFF" if plain and has_rasterio() else None
    try:
        height, width = image_size(path)
    except EyelineError:
        return "Pillow cannot read it"
    if height * width > pixel_limit() and has_rasterio() and not is_rotated(path):
        return "it is large"
    return None


def _layout(path: Path) -> tiff.Layout | None:
    """Of a TIFF that can be read."""
    try:
        with path.open("rb") as file:
            return tiff.read_layout(file)
    except DAMAGED:
        return None


def _unlike(layout: tiff.Layout) -> str | None:
    """In words, what of a TIFF `read_image` changes, and reading it by rows does not."""
    if layout.orientation not in (0, 1):
        return "its tag Orientation turns it"
    return "its colours are multiplied by alpha" if layout.extra == tiff.PREMULTIPLIED else None


def _check_tags(path: Path) -> None:
    layout = _layout(path)
    if layout is not None and (fault := _unlike(layout)):
        raise EyelineError(f"{path}: {fault}, and it cannot be read whole; save it without that")


def _bands(path: Path, file: Any, channels: int, bands: Sequence[int] | None) -> list[int]:
    interp = import_rasterio().enums.ColorInterp
    if bands is None:
        if file.count and file.colorinterp[0] == interp.palette:
            raise EyelineError(f"{path}: its pixels are numbers of colours; turn it into RGB first")
        bands = [i for i in file.indexes if file.colorinterp[i - 1] != interp.alpha]
        if len(bands) != channels:
            some = ",".join(str(min(i + 1, len(bands))) for i in range(channels))
            raise EyelineError(
                f"{path}: it has {len(bands)} bands, the model takes {channels}; choose them, "
                f"such as bands {some}"
            )
    if len(bands) != channels:
        raise EyelineError(f"{len(bands)} bands are chosen, the model takes {channels}")
    if wrong := [i for i in bands if i not in file.indexes]:
        raise EyelineError(f"{path}: it has bands 1 to {file.count}, not {wrong[0]}")
    return list(bands)


def _check_values(
    path: Path, file: Any, bands: Sequence[int], value_range: tuple[float, float] | None
) -> None:
    kinds = sorted({file.dtypes[i - 1] for i in bands})
    if len(kinds) > 1 or np.dtype(kinds[0]).kind not in "iuf":
        raise EyelineError(f"{path}: its bands are of {' and '.join(kinds)}; give one real kind")
    if value_range is None and kinds[0] != "uint8":
        usual = {"uint16": "0 and 65535, as training reads 16 bits", "float32": "0 and 1"}
        raise EyelineError(
            f"{path}: its values are {kinds[0]}; say by value_range which of them are 0 and 1 for "
            f"the model: {usual.get(kinds[0], 'such as those of the pictures it was trained with')}"
        )


@contextmanager
def _readable(path: object) -> Iterator[None]:
    rasterio = import_rasterio()
    try:
        yield
    except rasterio.errors.RasterioError as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise EyelineError(f"{path}: cannot read the picture: {reason}") from None


def check_target(path: Path, place: dict[str, Any]) -> None:
    """Raises EyelineError where `write_classes` could not write there."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise EyelineError(f"{path}: give it one of the endings {', '.join(SUFFIXES)}")
    if place and suffix not in TIFFS:
        raise EyelineError(f"{path}: a PNG cannot hold the picture's place on Earth; write a .tif")


def write_classes(
    path: Path,
    rows: Callable[[int], np.ndarray],
    height: int,
    width: int,
    classes: Sequence[str] | None = None,
    place: dict[str, Any] | None = None,
    suffix: str | None = None,
) -> None:
    """A map of classes as an indexed picture: PNG, or TIFF, with rasterio a tiled one of any size.

    Args:
        rows: gives the next so many rows, (n, W) uint8, 255 where nothing is known.
        classes: names, which a TIFF keeps as JSON in its tag CLASSES, with rasterio.
        place: of the source; a TIFF keeps it.
        suffix: of the file's kind, where its name does not tell.

    Raises OSError where the disk is full.
    """
    palette = palette_of(classes or ())
    if (suffix or path.suffix).lower() == ".png" or not has_rasterio():
        image = Image.fromarray(rows(height))
        image.putpalette(palette.tobytes())
        kind = {"format": "PNG"} if (suffix or path.suffix).lower() == ".png" else {
            "format": "TIFF", "compression": "tiff_adobe_deflate",
        }  # fmt: skip
        image.save(path, **kind)
        return
    rasterio = import_rasterio()
    profile = {
        "driver": "GTiff", "dtype": "uint8", "count": 1, "height": height, "width": width,
        "tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "deflate",
        "nodata": VOID, "photometric": "palette", "BIGTIFF": "IF_SAFER",
    }  # fmt: skip
    windows = [
        rasterio.windows.Window(0, top, width, min(BLOCK, height - top))
        for top in range(0, height, BLOCK)
    ]
    written = read = 0  # checksums
    with rasterio.Env(GDAL_CACHEMAX=CACHE):
        with rasterio.open(path, "w", **profile, **(place or {})) as file:
            file.write_colormap(1, {i: (*map(int, rgb), 255) for i, rgb in enumerate(palette)})
            if classes:
                file.update_tags(CLASSES=json.dumps(list(classes)))
            for window in windows:
                part = rows(window.height)
                written = zlib.crc32(part.data, written)
                file.write(part, 1, window=window)
        # What is written last is written when the file is closed, and that raises nothing.
        with rasterio.open(path) as file:
            for window in windows:
                read = zlib.crc32(np.ascontiguousarray(file.read(1, window=window)).data, read)
    if read != written:
        raise OSError("the file does not hold what was written; is the disk full?")
