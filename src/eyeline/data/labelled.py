"""Small pictures with a label each: MNIST's IDX files and CIFAR-10's binary ones, never pickles."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from eyeline.data.public.sets import SETS
from eyeline.errors import EyelineError

MAX_BYTES = 1 << 30  # of a file, unpacked
CIFAR_PIXELS = 3 * 32 * 32
CIFAR_FILES = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
MNIST_FILES = {"train": "train", "test": "t10k"}
T = TypeVar("T")


class LabelledPictures(Dataset[tuple[Tensor, Tensor]]):
    """(image (C, H, W) uint8, label () int64) of each picture.

    Attributes:
        images: (N, C, H, W) uint8.
        labels: (N,) int64, 0 .. K-1.
        classes: the K names.
    """

    def __init__(self, images: Tensor, labels: Tensor, classes: Sequence[str]) -> None:
        self.images, self.labels, self.classes = images, labels, list(classes)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.labels[index]


def open_mnist(folder: str | Path | None = None, split: str = "train") -> LabelledPictures:
    """MNIST: LeCun et al., "Gradient-based learning applied to document recognition", 1998.

    Args:
        folder: of the four files, with or without .gz; by default where `eyeline data get mnist`
            puts them.
        split: "train" or "test".

    Raises:
        EyelineError: a file is missing or not as it should be.
    """
    folder = SETS["mnist"].path if folder is None else Path(folder)
    stem = folder / _of_split(MNIST_FILES, split)
    pictures = _idx_file(Path(f"{stem}-images-idx3-ubyte"))
    marks = _idx_file(Path(f"{stem}-labels-idx1-ubyte"))
    images, labels = read_idx(pictures), read_idx(marks)
    if images.ndim != 3 or images.shape[1:] != (28, 28):
        raise EyelineError(f"{pictures}: should be pictures of 28x28, and has {images.shape}")
    if labels.shape != (len(images),):
        raise EyelineError(
            f"{marks}: should be {len(images)} labels, one a picture, and has {labels.shape}"
        )
    _check_labels(marks, labels)
    return LabelledPictures(
        torch.from_numpy(images)[:, None],
        torch.from_numpy(labels.astype(np.int64)),
        [str(digit) for digit in range(10)],
    )


def open_cifar10(folder: str | Path | None = None, split: str = "train") -> LabelledPictures:
    """CIFAR-10: Krizhevsky, "Learning multiple layers of features from tiny images", 2009.

    Args:
        folder: of the binary version's files; by default where `eyeline data get cifar10` puts
            them.
        split: "train" or "test".

    Raises:
        EyelineError: a file is missing or not as it should be.
    """
    folder = SETS["cifar10"].path if folder is None else Path(folder)
    names = folder / "batches.meta.txt"
    with _opened(names, "cifar10") as file:
        classes = file.read(10_000).decode("utf-8", "replace").split()
    if len(classes) != 10:
        raise EyelineError(f"{names}: should be the names of 10 classes, and has {len(classes)}")
    batches = []
    for path in [folder / name for name in _of_split(CIFAR_FILES, split)]:
        with _opened(path, "cifar10") as file:
            data = np.frombuffer(file.read(MAX_BYTES), np.uint8)
        if not len(data) or len(data) % (1 + CIFAR_PIXELS):
            raise EyelineError(
                f"{path}: {len(data)} bytes are no pictures of {1 + CIFAR_PIXELS} bytes each"
            )
        batches.append(data.reshape(-1, 1 + CIFAR_PIXELS))  # a label, then red, green, blue
        _check_labels(path, batches[-1][:, 0])
    data = np.concatenate(batches)
    return LabelledPictures(
        torch.from_numpy(data[:, 1:].reshape(-1, 3, 32, 32)),
        torch.from_numpy(data[:, 0].astype(np.int64)),
        classes,
    )


def read_idx(path: str | Path) -> np.ndarray:
    """An IDX file of bytes, gzipped or not: uint8, in as many dimensions as it says.

    Raises EyelineError where it is none, of other numbers than bytes, or not just as long as its
    head says.
    """
    path = Path(path)
    try:
        with _opened(path, "mnist") as file:
            start = file.read(4)
            if len(start) < 4 or start[:2] != b"\0\0":
                raise EyelineError(f"{path}: no IDX file; it begins with {start.hex(' ')}")
            if start[2] != 8 or not start[3]:
                raise EyelineError(
                    f"{path}: should be an IDX file of bytes, 08, and is one of {start[2]:02x} in "
                    f"{start[3]} dimensions"
                )
            head = file.read(4 * start[3])
            if len(head) < 4 * start[3]:
                raise EyelineError(f"{path}: cut off after {4 + len(head)} bytes")
            shape = struct.unpack(f">{start[3]}I", head)
            size = math.prod(shape)
            if size > MAX_BYTES:
                raise EyelineError(f"{path}: says it has {shape}, more than {MAX_BYTES} bytes")
            data = bytearray(file.read(size + 1))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise EyelineError(f"{path}: a damaged gzip file: {error}") from error
    if len(data) != size:
        there = "more" if len(data) > size else len(data)
        raise EyelineError(f"{path}: {shape} are {size} bytes, and there are {there}")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _of_split(files: Mapping[str, T], split: str) -> T:
    if split not in files:
        raise EyelineError(f"no split {split!r}; there are: {', '.join(files)}")
    return files[split]


def _idx_file(path: Path) -> Path:
    """Itself, or its gzipped form if only that is there."""
    packed = path.with_name(f"{path.name}.gz")
    return packed if packed.is_file() and not path.is_file() else path


def _opened(path: Path, name: str) -> IO[bytes]:
    if not path.is_file():
        raise EyelineError(f"{path}: no such file; `eyeline data get {name}` fetches the data set")
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _check_labels(path: Path, labels: np.ndarray) -> None:
    if len(bad := np.flatnonzero(labels > 9)):
        raise EyelineError(f"{path}: label {labels[bad[0]]} of picture {bad[0]}; 0 to 9 are known")
