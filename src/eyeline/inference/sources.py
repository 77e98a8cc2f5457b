"""What a Predictor takes: pictures and videos of any kind, found by one function, `find`."""

from __future__ import annotations

import glob
import os
import re
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from eyeline.data.images import find_images, read_image
from eyeline.data.urls import opened, without_login
from eyeline.errors import EyelineError
from eyeline.inference.draw import to_pil
from eyeline.inference.video import STREAMS, VIDEO_SUFFIXES, Video
from eyeline.ops.pixels import check_pixels

T = TypeVar("T")
Picture = str | Path | np.ndarray | Image.Image | Tensor  # one picture, or where it lies
Item = Picture | Video
Anything = Item | int | Iterable[Any]  # an int is a camera's index

URL_TIMEOUT = 20.0  # seconds without an answer
URL_LIMIT = 256 * 2**20  # bytes of a picture
STEM = 200  # bytes; most file systems take names of 255


@dataclass(frozen=True)
class Loaded:
    """A picture or a frame as a tensor."""

    image: Tensor  # (C, H, W), uint8 or float in [0, 1]
    path: str | None = None  # file, URL or camera it came from
    frame: int | None = None  # of a video, from 0
    time: float | None = None  # of a video, seconds from its first frame
    video: Video | None = None  # that it is a frame of


def find(source: Anything) -> tuple[list[Item], bool]:
    """The pictures and videos that `source` stands for, and whether it is a single picture.

    Nothing is opened or asked for: a URL whose name does not tell counts as a picture, until `load`
    hears what it gives. What was found can be found again, for itself.

    A source is a picture or video file, a folder (its pictures), a pattern (`shots/*.jpg`), a list
    file (.txt, a path or URL a line, empty lines and those that begin with # left out; relative
    paths count from the working directory or, where nothing lies there, from the file's folder), a
    camera (its index: 0 or "0"), a URL (of a picture, or http, rtsp, rtmp, udp, srt of a video), a
    picture in memory, or a list of any of these but folders.

    Raises:
        EyelineError: there is nothing of that name.
    """
    if isinstance(source, (np.ndarray, Tensor, Image.Image)):
        return [source], True
    if isinstance(source, Video):
        return [source], False
    if isinstance(source, int):
        return [Video(str(source), "camera")], False
    if not isinstance(source, (str, Path)):
        return [_single(item) for item in source], False
    path, text = Path(source), str(source)
    if os.path.isdir(path):  # unlike Path's it takes names that are too long for the system
        return list(_of_folder(path)), False
    if path.suffix.lower() == ".txt" and not is_url(text):
        return list(_of_list(path)), False
    if not os.path.exists(path) and not is_url(text) and glob.has_magic(text):
        names = sorted(n for n in glob.glob(text, recursive=True) if Path(n).is_file())
        if not names:
            raise EyelineError(f"{source}: no file matches this pattern")
        return [_single(Path(name)) for name in names], False
    item = _single(source)
    return [item], not isinstance(item, Video)


def _single(item: Any) -> Item:
    """One picture or video, where the name of one may stand."""
    if isinstance(item, int):
        return Video(str(item), "camera")
    if not isinstance(item, (str, Path)):
        return item  # type: ignore[no-any-return]
    text = str(item)
    if isinstance(item, str) and text.startswith(STREAMS):
        return Video(text, "stream")
    if is_url(item):
        # What ends with .mjpg is as often a camera as a file; the server will tell.
        told = VIDEO_SUFFIXES - {".mjpeg", ".mjpg"}
        return Video(text, "url") if _path_of(text).suffix.lower() in told else text
    path = Path(item)
    if text.isdecimal() and not os.path.exists(path):
        return Video(text, "camera")
    if text.startswith("/dev/video") and text[10:].isdecimal():
        return Video(text[10:], "camera")
    return Video(text, "file") if path.suffix.lower() in VIDEO_SUFFIXES else path


def _of_folder(folder: Path) -> list[Path]:
    if pictures := find_images(folder):
        return pictures
    videos = [f"*{p.suffix}" for p in folder.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES]
    hint = f"; for its videos give a pattern, such as {folder}/{videos[0]}" if videos else ""
    raise EyelineError(f"{folder}: no picture in this folder{hint}")


def _of_list(path: Path) -> Iterator[Item]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise EyelineError(f"{path}: cannot be read as a list of pictures: {reason}") from None
    names = [(i, line.strip()) for i, line in enumerate(lines, 1)]
    names = [(i, name) for i, name in names if name and not name.startswith("#")]
    if not names:
        raise EyelineError(f"{path}: no path in this list")
    for i, name in names:
        yield listed(name, path, i)


def listed(name: str, path: Path, i: int) -> Item:
    """What line or row `i` of the list `path` names."""
    if name.startswith(("http://", "https://", *STREAMS)):
        return _single(name)
    found = next((p for p in (Path(name), path.parent / name) if os.path.isfile(p)), None)
    if found is None:
        raise EyelineError(f"{path}:{i}: no such file: {name}")
    return _single(found)


def load(
    items: Iterable[Item],
    every: int = 1,
    channels: int = 3,
    unread: Callable[[EyelineError], object] | None = None,
) -> Iterator[Loaded]:
    """The pictures, of so many channels, and each `every`-th frame of the videos, one by one.

    Args:
        unread: called with the error where an item, or the rest of a video, cannot be read, and
            the others follow; without it the error is raised.
    """
    for item in items:
        try:
            yield from _loaded(item, every, channels)
        except EyelineError as error:
            if unread is None:
                raise
            unread(error)


def _loaded(item: Item, every: int, channels: int) -> Iterator[Loaded]:
    found = _download(item, channels) if is_url(item) else item
    if isinstance(found, Video):
        for frame in found.frames(every):
            yield Loaded(frame.image, found.name, frame.index, frame.time, found)
    else:
        yield Loaded(read_picture(found, channels), name_of(item))


def groups(loaded: Iterator[T], size: int) -> Generator[list[T]]:
    """`size` at a time; what was loaded before an error comes before it."""
    group: list[T] = []
    try:
        for one in loaded:
            group.append(one)
            if len(group) == size:
                full, group = group, []
                yield full
    except EyelineError:
        if group:
            yield group
        raise
    if group:
        yield group


def read_picture(picture: Picture, channels: int = 3) -> Tensor:
    """(C, H, W), uint8 or float in [0, 1]; of files so many channels, see `read_image`.

    Raises:
        EyelineError: the picture is missing, cannot be read, or is of another shape or type.
    """
    if is_url(picture):
        found = _download(picture, channels)
        if isinstance(found, Video):
            raise EyelineError(f"{found.name}: a video, not a picture")
        return found
    if isinstance(picture, (str, Path)):
        return read_image(Path(picture), channels=channels)
    if isinstance(picture, Tensor):
        check_pixels(picture, "the picture has")
        return picture
    if isinstance(picture, Image.Image):
        picture = ImageOps.exif_transpose(picture)
    elif picture.ndim == 3 and (picture.dtype.kind == "f" or picture.shape[2] == channels != 3):
        image = torch.from_numpy(picture.copy()).permute(2, 0, 1).contiguous()
        check_pixels(image, "the picture has")
        return image
    array = np.asarray(to_pil(picture))
    return torch.from_numpy(array.copy()).permute(2, 0, 1).contiguous()


def _download(url: Any, channels: int) -> Tensor | Video:
    """The picture that a URL gives, or the video where its server says that it is one."""
    shown = without_login(url)
    with opened(url, URL_TIMEOUT) as answer:
        kind = answer.headers.get_content_type()
        if kind == "multipart/x-mixed-replace":  # JPEGs without an end: a network camera
            return Video(url, "stream")
        named = _path_of(url).suffix.lower() in VIDEO_SUFFIXES
        if named or kind.startswith("video/") or kind.endswith("mpegurl"):
            return Video(url, "url")
        data = answer.read(URL_LIMIT + 1)
    if len(data) > URL_LIMIT:
        raise EyelineError(f"{shown}: larger than {URL_LIMIT // 2**20} MiB")
    return read_bytes(data, shown, channels)


def read_bytes(data: bytes, shown: str, channels: int = 3) -> Tensor:
    """The same as `read_picture` of a picture's file in memory, which errors call `shown`."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "picture")
        file.write_bytes(data)
        try:
            return read_image(file, channels=channels)
        except EyelineError as error:
            raise EyelineError(str(error).replace(str(file), shown)) from None


def _path_of(url: str) -> PurePosixPath:
    """What stands behind the host."""
    _, _, behind = re.sub("[?#].*", "", url).partition("://")
    return PurePosixPath(unquote(behind.partition("/")[2]))


def is_url(picture: Any) -> bool:
    return isinstance(picture, str) and picture.startswith(("http://", "https://"))


def name_of(picture: Item) -> str | None:
    return without_login(str(picture)) if isinstance(picture, (str, Path)) else None


def stem_of(path: str) -> str:
    """What to call the output of a picture or video of that path, URL or camera; short enough to
    be the name of a file with a number and an ending."""
    stem = Path(path).stem
    if "://" in path:
        stem = _path_of(path).stem or urlsplit(path).hostname or ""
    stem = stem.encode(errors="surrogateescape")[:STEM].decode(errors="ignore")
    return stem.replace(" ", "-") or "stream"
