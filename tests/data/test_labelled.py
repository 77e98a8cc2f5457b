from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from eyeline.data import labelled
from eyeline.data.labelled import open_cifar10, open_mnist, read_idx
from eyeline.errors import EyelineError

CLASSES = [
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
]  # fmt: skip


def idx(values: np.ndarray) -> bytes:
    """The format, by its definition: two zeros, 08 for bytes, the dimensions, big-endian."""
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


def write_mnist(folder: Path, images: np.ndarray, labels: np.ndarray, stem: str = "train") -> None:
    (folder / f"{stem}-images-idx3-ubyte").write_bytes(idx(images))
    (folder / f"{stem}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))


@pytest.fixture
def digits() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (12, 28, 28), np.uint8), (np.arange(12) % 10).astype(np.uint8)


def test_mnist(tmp_path: Path, digits: tuple[np.ndarray, np.ndarray]) -> None:
    """One file gzipped, the other not."""
    write_mnist(tmp_path, *digits)
    write_mnist(tmp_path, digits[0][:3], digits[1][:3], "t10k")
    data = open_mnist(tmp_path)
    assert data.images.shape == (12, 1, 28, 28) and data.images.dtype == torch.uint8
    assert data.labels.dtype == torch.int64 and data.classes == list("0123456789")
    assert torch.equal(data.images[:, 0], torch.from_numpy(digits[0]))
    assert data.labels.tolist() == digits[1].tolist()
    image, label = data[5]
    assert image.shape == (1, 28, 28) and label == 5
    assert len(open_mnist(tmp_path, "test")) == 3
    images, labels = next(iter(DataLoader(data, batch_size=4)))
    assert images.shape == (4, 1, 28, 28) and labels.tolist() == [0, 1, 2, 3]


def test_real_digits(shared_data: Path, tmp_path: Path) -> None:
    with np.load(shared_data / "digits/mnist.npz") as found:
        images, labels = found["x_train"], found["y_train"].astype(np.uint8)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(images))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(labels))
    data = open_mnist(tmp_path)
    assert len(data) == 60_000
    assert torch.equal(data.images[:, 0], torch.from_numpy(images))
    assert torch.equal(data.labels, torch.from_numpy(labels.astype(np.int64)))
    assert torch.bincount(data.labels).tolist()[:3] == [5923, 6742, 5958]  # as published


def test_idx_of_any_dimensions(tmp_path: Path) -> None:
    for shape in ((7,), (2, 3), (2, 3, 4, 5), (0, 28, 28)):
        values = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
        (tmp_path / "a").write_bytes(idx(values))
        assert np.array_equal(read_idx(tmp_path / "a"), values)
        (tmp_path / "a.gz").write_bytes(gzip.compress(idx(values)))
        assert np.array_equal(read_idx(tmp_path / "a.gz"), values)


GOOD = idx(np.zeros((2, 3), np.uint8))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no IDX file; it begins with $"),
        (b"\x80\x04\x95\x10", "no IDX file; it begins with 80 04 95 10"),  # a pickle
        (b"<html>", "no IDX file; it begins with 3c 68 74 6d"),
        (GOOD[:2] + b"\x0d" + GOOD[3:], "IDX file of bytes, 08, and is one of 0d in 2 dimensions"),
        (GOOD[:3] + b"\0", "IDX file of bytes, 08, and is one of 08 in 0 dimensions"),
        (GOOD[:9], "cut off after 9 bytes"),
        (GOOD[:-1], r"\(2, 3\) are 6 bytes, and there are 5"),
        (GOOD + b"\0", r"\(2, 3\) are 6 bytes, and there are more"),
        (struct.pack(">HBB2I", 0, 8, 2, 1 << 31, 1 << 31), "more than 1073741824 bytes"),
    ],
)
def test_broken_idx(tmp_path: Path, content: bytes, message: str) -> None:
    for name, written in (("a", content), ("a.gz", gzip.compress(content))):
        (tmp_path / name).write_bytes(written)
        with pytest.raises(EyelineError, match=f"{name}: .*{message}") as caught:
            read_idx(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_damaged_gzip(tmp_path: Path) -> None:
    packed = gzip.compress(idx(np.random.default_rng(0).integers(0, 256, (9, 28), np.uint8)))
    spoilt = bytearray(packed)
    spoilt[-6] ^= 1  # of its checksum
    for content in (packed[:100], bytes(spoilt), b"not gzip at all"):
        (tmp_path / "a.gz").write_bytes(content)
        with pytest.raises(EyelineError, match=r"a\.gz: a damaged gzip file"):
            read_idx(tmp_path / "a.gz")


def test_files_that_do_not_belong_together(
    tmp_path: Path, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    images, labels = digits
    write_mnist(tmp_path, images, labels[:-1])
    with pytest.raises(EyelineError, match=r"labels-idx1-ubyte\.gz: should be 12 labels.*\(11,\)"):
        open_mnist(tmp_path)
    write_mnist(tmp_path, images[:, :27], labels)
    with pytest.raises(EyelineError, match=r"should be pictures of 28x28, and has \(12, 27, 28\)"):
        open_mnist(tmp_path)
    write_mnist(tmp_path, images, labels + 4)
    with pytest.raises(EyelineError, match="label 10 of picture 6; 0 to 9 are known"):
        open_mnist(tmp_path)
    with pytest.raises(EyelineError, match="no split 'val'; there are: train, test"):
        open_mnist(tmp_path, "val")
    with pytest.raises(EyelineError, match=r"t10k-images.*no such file; `eyeline data get mnist`"):
        open_mnist(tmp_path, "test")


def write_cifar(folder: Path, labels: list[int], pictures: np.ndarray) -> None:
    records = np.concatenate([np.array(labels, np.uint8)[:, None], pictures.reshape(-1, 3072)], 1)
    for i in range(1, 6):
        (folder / f"data_batch_{i}.bin").write_bytes(np.roll(records, i, 0).tobytes())
    (folder / "test_batch.bin").write_bytes(records.tobytes())
    (folder / "batches.meta.txt").write_text("\n".join([*CLASSES, "", ""]))


def test_cifar10(tmp_path: Path) -> None:
    """Red, green and blue planes of 32 rows."""
    pictures = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), np.uint8)
    write_cifar(tmp_path, [3, 1, 9, 0], pictures)
    data = open_cifar10(tmp_path, "test")
    assert data.classes == CLASSES and data.labels.tolist() == [3, 1, 9, 0]
    assert data.images.dtype == torch.uint8
    assert torch.equal(data.images, torch.from_numpy(pictures))
    train = open_cifar10(tmp_path)
    assert len(train) == 20 and train.labels[:5].tolist() == [0, 3, 1, 9, 9]


def test_broken_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIFAR10_ROOT", str(tmp_path / "none"))
    with pytest.raises(EyelineError, match="no such file; `eyeline data get cifar10` fetches"):
        labelled.open_cifar10()
    pictures = np.zeros((2, 3, 32, 32), np.uint8)
    write_cifar(tmp_path, [3, 10], pictures)
    with pytest.raises(EyelineError, match=r"test_batch\.bin: label 10 of picture 1"):
        open_cifar10(tmp_path, "test")
    for content in (b"", bytes(3072), bytes(3 * 3073 + 1)):
        (tmp_path / "test_batch.bin").write_bytes(content)
        with pytest.raises(EyelineError, match=f"{len(content)} bytes are no pictures of 3073"):
            open_cifar10(tmp_path, "test")
    (tmp_path / "batches.meta.txt").write_text("cat\ndog\n")
    with pytest.raises(EyelineError, match="should be the names of 10 classes, and has 2"):
        open_cifar10(tmp_path)
