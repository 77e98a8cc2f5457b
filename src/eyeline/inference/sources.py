"""What a Predictor takes: pictures and videos of any kind, found by one function, `find`."""

from __future__ import annotations

import glob
import tempfile
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from eyeline.data.images import SUFFIXES, find_images, read_image
from eyeline.errors import EyelineError
from eyeline.inference.draw import to_pil
from eyeline.inference.video import STREAMS, VIDEO_SUFFIXES, Video

Picture = str | Path | np.ndarray | Image.Image | Tensor  # one picture, or where it lies
Item = Picture | Video
Anything = Item | int | Iterable[Any]  # an int is a camera's index

URL_TIMEOUT = 20.0  # seconds without an answer
URL_LIMIT = 256 * 2**20  # bytes of a picture


@dataclass(frozen=True)
class Loaded:
    """A picture or a frame as a tensor."""

    image: Tensor  # (C, H, W), uint8 or float in [0, 1]
    path: str | None = None  # file, URL or camera it came from
    frame: int | None = None  # of a video, from 0
    time: float | None = None  # of a video, seconds from its first frame


def find(source: Anything) -> tuple[list[Item], bool]:
    """The pictures and videos that `source` stands for, and whether it is a single picture.

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
    if path.is_dir():
        return list(_of_folder(path)), False
    if path.suffix.lower() == ".txt" and not is_url(text):
        return list(_of_list(path)), False
    if not path.exists() and not is_url(text) and glob.has_magic(text):
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
        suffix = Path(urlsplit(text).path).suffix.lower()
        if suffix in VIDEO_SUFFIXES or (suffix not in SUFFIXES and _answers_video(text)):
            return Video(text, "url")
        return text
    path = Path(item)
    if text.isdecimal() and not path.exists():
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
        if name.startswith(("http://", "https://", *STREAMS)):
            yield _single(name)
            continue
        beside = path.parent / name
        found = next((p for p in (Path(name), beside) if p.is_file()), None)
        if found is None:
            raise EyelineError(f"{path}:{i}: no such file: {name}")
        yield _single(found)


def load(items: Iterable[Item], every: int = 1) -> Iterator[Loaded]:
    """The pictures, and each `every`-th frame of the videos, one by one."""
    for item in items:
        if isinstance(item, Video):
            for frame in item.frames(every):
                yield Loaded(frame.image, item.name, frame.index, frame.time)
        else:
            yield Loaded(read_picture(item), name_of(item))


def groups(loaded: Iterator[Loaded], size: int) -> Iterator[list[Loaded]]:
    """`size` at a time; what was loaded before an error comes before it."""
    group: list[Loaded] = []
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


def read_picture(picture: Picture) -> Tensor:
    """(C, H, W), uint8 or float in [0, 1].

    Raises:
        EyelineError: the picture is missing, cannot be read, or is of another shape.
    """
    if is_url(picture):
        return _download(str(picture))
    if isinstance(picture, (str, Path)):
        return read_image(Path(picture))
    if isinstance(picture, Tensor):
        return picture
    if isinstance(picture, Image.Image):
        picture = ImageOps.exif_transpose(picture)
    elif np.issubdtype(picture.dtype, np.floating) and picture.ndim == 3:
        return torch.from_numpy(picture.copy()).permute(2, 0, 1).contiguous()
    array = np.asarray(to_pil(picture))
    return torch.from_numpy(array.copy()).permute(2, 0, 1).contiguous()


def _download(url: str) -> Tensor:
    with _open(url) as answer:
        try:
            data = answer.read(URL_LIMIT + 1)
        except OSError as error:
            raise EyelineError(f"{url}: cannot be fetched ({error})") from None
    if len(data) > URL_LIMIT:
        raise EyelineError(f"{url}: larger than {URL_LIMIT // 2**20} MiB")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "picture")
        file.write_bytes(data)
        try:
            return read_image(file)
        except EyelineError as error:
            raise EyelineError(str(error).replace(str(file), url)) from None


def _open(url: str) -> Any:
    request = urllib.request.Request(url, headers={"User-Agent": "eyeline"})
    try:
        return urllib.request.urlopen(request, timeout=URL_TIMEOUT)
    except (OSError, ValueError) as error:  # URLError and timeouts are OSErrors
        raise EyelineError(f"{url}: cannot be fetched ({error})") from None


def _answers_video(url: str) -> bool:
    """Does a URL whose name does not tell give a video? (A network camera's often does.)"""
    with _open(url) as answer:
        kind = answer.headers.get_content_type()
    return bool(
        kind.startswith(("video/", "multipart/x-mixed-replace")) or kind.endswith("mpegurl")
    )


def is_url(picture: Any) -> bool:
    return isinstance(picture, str) and picture.startswith(("http://", "https://"))


def name_of(picture: Picture) -> str | None:
    return str(picture) if isinstance(picture, (str, Path)) else None


def stem_of(path: str) -> str:
    """What to call the output of a picture or video of that path, URL or camera."""
    if "://" in path:
        path = unquote(urlsplit(path).path) or urlsplit(path).netloc
    return Path(path).stem.replace(" ", "-") or "stream"
