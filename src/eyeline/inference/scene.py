"""predict_scene: the classes of a picture of any size, from a file to a file.

The picture is read, computed and written by rows of tiles. What is done so far lies beside the
target, and the same call goes on from there, however the last one ended:

    .NAME.begun   what decides the result, as JSON
    .NAME.rows    the rows that are done, one byte a pixel, each as it will be in the target
    .NAME.lock    while somebody is at work

The target itself comes into being whole, at the end.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor, nn

from eyeline.data.formats.legend import VOID
from eyeline.errors import EyelineError
from eyeline.files import make_folder, write_whole
from eyeline.inference.rasters import Raster, Whole, check_target, opened, write_classes
from eyeline.inference.tiles import Model, Tiling, blended, check_model, spans
from eyeline.locking import FileLock

# What a key of the description that differs means to the user, who does not know the key.
OTHER = {
    "model": "another model",
    "bytes": "the picture as it was before it changed",
    "changed": "the picture as it was before it changed",
    "size": "the picture as it was before it changed",
}
ALL = 2**30  # the side of a tile that every picture fits into
LARGEST = 2**29  # logits of a picture that is a single tile; it takes three times their 4 bytes
FREE = ("batch_size",)  # of the tiling: may be another when a prediction goes on


@dataclass(frozen=True)
class Scene:
    """What `predict_scene` has written."""

    path: Path
    height: int
    width: int
    pixels: tuple[int, ...]  # how many have each value, 0 to 255


def predict_scene(
    model: Model,
    source: str | Path,
    target: str | Path,
    *,
    tiling: Tiling | None = None,
    classes: Sequence[str] | None = None,
    bands: Sequence[int] | None = None,
    value_range: tuple[float, float] | None = None,
    options: Mapping[str, Any] | None = None,
    device: torch.device | str | None = None,
    whole: bool = False,
    progress: Callable[[int, int], object] = lambda done, rows: None,
) -> Scene:
    """Write the class of each pixel of a picture as an indexed picture of the same size.

    A GeoTIFF keeps its place on Earth; pixels without data are 255. Ctrl-C (or a kill) leaves what
    is done beside the target, and the same call goes on from there; the result is the same, bit for
    bit, if `batch_size` is.

    Memory: the process's own, with torch about 0.4 GB; the network's for a batch of tiles; and, of
    a picture of width W and C channels of s bytes, tiles of t pixels blended over b, and K classes,

        4 K (b W + (batch_size + 3) t^2)  +  3 C s t W  +  2 t W  +  130 MB for files.

    Its height does not count. On the disk the target needs H x W bytes more until it is whole.

    Args:
        model: a segmenter in eval mode, of at most 255 classes.
        source: a picture, read as `eyeline.inference.rasters.opened` does it.
        target: a new file: .tif, .tiff or .png (which is made in memory).
        tiling: tile, overlap and so on; see `Tiling`.
        classes: their names; by default the model's.
        bands, value_range: see `opened`.
        options: whatever else decides the result; a prediction that was begun with others is not
            gone on with.
        device: where the model is, if it has no parameters that tell.
        whole: the picture is a single tile, as a model that resizes what it sees wants it.
        progress: called with the rows that are done and all rows, first before anything is done.

    Raises:
        EyelineError: the target is there already, was begun with something else, or is being
            written; the picture cannot be read; the model does not suit it.
    """
    source, target, tiling = Path(source), Path(target), tiling or Tiling()
    if os.path.lexists(target):
        raise EyelineError(f"{target} exists already; choose another --out")
    channels = getattr(model, "channels", None) or len(bands or (1, 2, 3))
    where = check_model(model, channels, device)
    names = list(classes or getattr(model, "classes", None) or ())
    with opened(source, channels, bands, value_range) as picture:
        check_target(target, picture.place)
        if whole:
            _check_size(source, picture, len(names))
            tiling = replace(tiling, tile=ALL, overlap=0, margin=0, align=1)
        begun = _description(model, source, picture, tiling, bands, value_range, options or {})
        make_folder(target.parent)
        lock = FileLock(
            target.with_name(f".{target.name}.lock"),
            f"{target}: {{holder}} is writing it; wait until it is done",
            threads=True,
        )
        with lock, State(target, begun, picture.height, picture.width) as state:
            progress(state.rows, picture.height)
            for rows in _classes(model, picture, tiling, where, state.rows):
                state.add(rows)
                progress(state.rows, picture.height)
            pixels = np.zeros(256, np.int64)

            def following(file: IO[bytes], count: int) -> np.ndarray:
                part = np.fromfile(file, np.uint8, count * picture.width)
                pixels[:] += np.bincount(part, minlength=256)
                return part.reshape(count, picture.width)

            def write(part: Path) -> None:
                with state.rows_path.open("rb") as file:
                    write_classes(
                        part,
                        lambda count: following(file, count),
                        picture.height,
                        picture.width,
                        names,
                        picture.place,
                        target.suffix,
                    )

            with _writable(target):
                write_whole(target, write, new=True)
            state.remove()
            return Scene(target, picture.height, picture.width, tuple(pixels.tolist()))


def _check_size(source: Path, picture: Whole | Raster, classes: int) -> None:
    """Raises EyelineError where a picture cannot be a single tile."""
    if picture.height * picture.width * classes > LARGEST:
        raise EyelineError(
            f"{source}: {picture.width}x{picture.height} pixels of {classes} classes are too many "
            "for a model that resizes every picture and so takes no tiles; train one with "
            "model.size=0 (and random_crop), or cut the picture up"
        )


def _classes(
    model: Model, picture: Whole | Raster, tiling: Tiling, device: torch.device, done: int
) -> Iterator[np.ndarray]:
    """The classes (h, W) uint8 of the rows from `done` on, 255 where there are no data."""
    height, width = picture.height, picture.width
    down = spans(height, tiling)
    ends = [*(span.low for span in down[1:]), height]  # of what each row of tiles completes
    first = next((i for i, end in enumerate(ends) if end > done), len(ends))
    if first == len(ends):
        return

    def scaled(images: Tensor) -> Tensor:
        return model(picture.values(images))

    found = np.empty((0, width), np.uint8)
    for patch in blended(scaled, picture.rows, height, width, tiling, device, first):
        classes, h, w = patch.logits.shape
        if classes > VOID:
            raise EyelineError(f"a map of classes holds {VOID} of them, the model has {classes}")
        if patch.left == 0:
            found = np.empty((h, width), np.uint8)
        best = patch.logits.max(0).indices  # much faster than argmax
        found[:, patch.left : patch.left + w] = best.to(torch.uint8).cpu().numpy()
        if patch.left + w == width:
            valid = picture.valid(patch.top, patch.top + h)
            if valid is not None:
                found[~valid] = VOID
            yield found[max(0, done - patch.top) :]


class State:
    """What is done of a prediction, beside its target. As a context it ends the file's last row.

    Args:
        begun: what decides the result.

    Raises:
        EyelineError: a prediction of this target was begun with something else.
    """

    def __init__(self, target: Path, begun: dict[str, Any], height: int, width: int) -> None:
        self.target, self.height, self.width = target, height, width
        self.rows_path = target.with_name(f".{target.name}.rows")
        self.begun_path = target.with_name(f".{target.name}.begun")
        self.rows = 0
        text = json.dumps(begun, indent=2)
        with _writable(target):
            if self.begun_path.exists():
                self._compare(json.loads(text))
                if self.rows_path.exists():
                    self.rows = min(self.rows_path.stat().st_size // width, height)
            else:
                write_whole(self.begun_path, lambda part: part.write_text(text, encoding="utf-8"))
            self.file = self.rows_path.open("r+b" if self.rows else "wb")
            self.file.truncate(self.rows * width)  # a kill may have left a part of a row
            self.file.seek(0, os.SEEK_END)

    def _compare(self, begun: dict[str, Any]) -> None:
        where = f"{self.begun_path}"
        try:
            former = json.loads(self.begun_path.read_text(encoding="utf-8"))
            assert isinstance(former, dict)
        except (ValueError, AssertionError):
            raise EyelineError(f"{where}: cannot be read; delete it to begin anew") from None
        for key in sorted(begun.keys() | former.keys()):
            if begun.get(key) != former.get(key):
                what = f"{key} {former.get(key)}, now it is {begun.get(key)}"
                what = OTHER.get(key, what)
                raise EyelineError(
                    f"{self.target}: begun with {what}; go on as it was begun, delete {where} to "
                    "begin anew, or choose another --out"
                )

    def add(self, rows: np.ndarray) -> None:
        """Keep (h, W) more rows."""
        with _writable(self.target):
            self.file.write(np.ascontiguousarray(rows).data)
            self.file.flush()
            os.fsync(self.file.fileno())
        self.rows += len(rows)

    def remove(self) -> None:
        """Delete what is kept."""
        self.file.close()
        self.rows_path.unlink(missing_ok=True)
        self.begun_path.unlink(missing_ok=True)

    def __enter__(self) -> State:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        if not self.rows:
            self.remove()


@contextmanager
def _writable(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # a full disk, most often
        reason = error.strerror or " ".join(str(error.__cause__ or error).split())
        raise EyelineError(
            f"{target}: cannot be written: {reason}; what is done is kept, and the same command "
            "goes on"
        ) from None


def _description(
    model: Model,
    source: Path,
    picture: Whole | Raster,
    tiling: Tiling,
    bands: Sequence[int] | None,
    value_range: tuple[float, float] | None,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """What decides the result, as JSON can hold it."""
    file = source.stat()
    return {
        "source": str(source.absolute()),
        "bytes": file.st_size,
        "changed": file.st_mtime_ns,
        "size": [picture.height, picture.width],
        "bands": None if bands is None else list(bands),
        "value_range": None if value_range is None else list(value_range),
        **{key: value for key, value in asdict(tiling).items() if key not in FREE},
        **options,
        "model": fingerprint(model),
    }


def fingerprint(model: Model) -> str:
    """Of a model's parts, their configurations and weights; of another callable its name alone."""
    told = hashlib.sha256(type(model).__name__.encode())
    if isinstance(model, nn.Module):
        told.update(repr(model).encode())
        for part in model.modules():
            told.update(repr(getattr(part, "config", None)).encode())
        for name, tensor in model.state_dict().items():
            told.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            whole = tensor.detach().cpu().contiguous().reshape(-1)
            told.update(whole.view(torch.uint8).numpy().data)
    return told.hexdigest()
