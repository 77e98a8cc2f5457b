from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eyeline.data import samples
from eyeline.data.datasets import open_dataset
from eyeline.data.samples import _scans, compose, write_samples
from eyeline.errors import EyelineError

pytest.importorskip("sklearn", reason="the sample data takes its scans from scikit-learn")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_samples(tmp_path_factory.mktemp("samples"), train=14, val=4, size=96, seed=5)


def test_what_is_written_can_be_read(folder: Path) -> None:
    counts = []
    for split, expected in (("train", 14), ("val", 4)):
        dataset = open_dataset(folder, split, masks=True)
        assert len(dataset) == expected and dataset.classes == [str(k) for k in range(10)]
        for i in range(len(dataset)):
            image, target = dataset[i]
            assert image.shape == (3, 96, 96) and 1 <= len(target["boxes"]) <= 6
            assert target["masks"].flatten(1).any(1).all()
            for mask, box in zip(target["masks"], target["boxes"], strict=True):
                y, x = mask.nonzero().unbind(1)
                assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
            assert (target["masks"].sum(0) <= 1).all()  # only what is visible
            counts.append(len(target["boxes"]))
    assert len(set(counts)) >= 4


def test_areas_and_semantic_masks_agree_with_the_masks(folder: Path) -> None:
    dataset = open_dataset(folder, "train", masks=True)
    content = json.loads((folder / "annotations/instances_train.json").read_text())
    areas = [annotation["area"] for annotation in content["annotations"]]
    names = json.loads((folder / "semantic/classes.json").read_text())
    assert names == [*dataset.classes, "background"]
    found = []
    for i in range(len(dataset)):
        _, target = dataset[i]
        found += target["masks"].flatten(1).sum(1).tolist()
        semantic = np.asarray(Image.open(folder / f"semantic/train/{i:05d}.png"))
        assert semantic.shape == (96, 96) and semantic.dtype == np.uint8
        expected = np.full((96, 96), 10)
        for mask, label in zip(target["masks"], target["labels"], strict=True):
            expected[mask.numpy()] = label
        known = semantic != 255
        assert (semantic[known] == expected[known]).all()
        assert 0 < (~known).mean() < 0.15
        assert set(target["labels"].tolist()) <= set(np.unique(semantic).tolist())
    assert found == areas


def test_the_same_arguments_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    again = write_samples(tmp_path / "again", train=14, val=4, size=96, seed=5)
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert len(files) == 2 * (14 + 4) + 3
    assert files == sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    for file in files:
        assert (folder / file).read_bytes() == (again / file).read_bytes()
    other = write_samples(tmp_path / "other", train=1, val=1, size=96, seed=6)
    assert (other / "train/00000.png").read_bytes() != (folder / "train/00000.png").read_bytes()


def test_train_and_val_share_no_scan() -> None:
    scans = _scans(0)
    train, val = ({scan.tobytes() for scan, _ in scans[split]} for split in ("train", "val"))
    assert len(scans["train"]) + len(scans["val"]) == 1797 and len(scans["val"]) == 360
    assert not train & val
    assert {label for _, label in scans["val"]} == set(range(10))


def test_digits_are_legible() -> None:
    """Big enough, not much hidden, and of another brightness than what is around them."""
    scans = _scans(0)["train"]
    heights, contrasts = [], []
    for seed in range(25):
        scene = compose(scans, 160, np.random.default_rng(seed))
        grey = scene.image.astype(float) @ [0.299, 0.587, 0.114] / 255
        for mask in scene.masks:
            rows = np.flatnonzero(mask.any(1))
            heights.append(rows[-1] - rows[0] + 1)
            ring = torch.nn.functional.max_pool2d(torch.tensor(mask)[None].float(), 7, 1, 3)[0] > 0
            outside = ring.numpy() & ~scene.masks.any(0)
            contrasts.append(abs(np.median(grey[mask]) - np.median(grey[outside])))
    assert len(heights) > 50
    assert min(heights) >= 12 and max(heights) <= 110  # the part that is visible, turned
    assert np.quantile(heights, 0.9) > 2.5 * np.quantile(heights, 0.1)
    assert np.quantile(contrasts, 0.1) > 0.25


def test_digits_hide_little_of_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    scans, paint, drawn = _scans(0)["train"], samples._paint, []

    def watch(canvas: np.ndarray, opacity: np.ndarray, colour: np.ndarray) -> None:
        drawn.append(int((opacity > 0.5).sum()))
        paint(canvas, opacity, colour)

    monkeypatch.setattr(samples, "_paint", watch)
    shares: list[float] = []
    for seed in range(40):
        scene = compose(scans, 96, np.random.default_rng(seed))
        whole = drawn[-len(scene.labels) :]  # the background is painted before them
        shares += (scene.masks.sum((1, 2)) / whole).tolist()
    assert 0.8 <= min(shares) < 1 and max(shares) == 1


def test_bad_arguments(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for sizes in ({"train": 0}, {"val": 0}, {"size": 20}):
        with pytest.raises(EyelineError, match="needs train, val >= 1 and size >= 32"):
            write_samples(tmp_path / "new", **sizes)
    (tmp_path / "mine.txt").touch()
    with pytest.raises(EyelineError, match="not empty"):
        write_samples(tmp_path)
    edited = folder / "annotations" / "instances_val.json"
    before = edited.read_bytes()
    with pytest.raises(EyelineError, match="not empty"):  # not even what it wrote itself
        write_samples(folder, train=1, val=1, size=96)
    assert edited.read_bytes() == before
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(EyelineError, match=r"scikit-learn: pip install 'eyeline\[learn\]'"):
        write_samples(tmp_path / "new")
    assert not (tmp_path / "new").exists()
