"""What workers share, and that they give the same, however many they are."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from eyeline.data import annotated, datasets
from eyeline.data.datasets import DetectionDataset, open_dataset
from eyeline.data.formats import Annotations, Record
from eyeline.data.loader import build_loader
from eyeline.data.packed import PackedRecords
from eyeline.data.transforms import from_names
from eyeline.nn.detector import Preprocess

FLOATS = 100  # of an outline


def records(path: Path, count: int) -> list[Record]:
    rng = np.random.default_rng(0)
    return [
        Record(
            path, 16, 12, np.array([[1, 1, 9, 9]] * 4, np.float32), np.zeros(4, np.int64),
            np.zeros(4, bool), [[rng.uniform(1, 9, FLOATS).tolist()] for _ in range(4)], i,
            [f"here:{i}:{j}" for j in range(4)],
        )
        for i in range(count)
    ]  # fmt: skip


def test_packed_records_are_the_records(tmp_path: Path) -> None:
    given = records(tmp_path / "고양이.png", 5)
    packed = PackedRecords(given)
    assert len(packed) == 5 and [one.image_id for one in packed] == [0, 1, 2, 3, 4]
    for one, other in ((packed[3], given[3]), (packed[-1], given[4]), (packed[1:3][1], given[2])):
        assert one.path == other.path and one.where == other.where
        assert np.array_equal(one.boxes, other.boxes) and one.boxes.dtype == np.float32
        assert one.segmentations == other.segmentations
    with pytest.raises(IndexError):
        packed[5]
    assert list(PackedRecords([])) == []


def test_a_shared_data_set_gives_the_same(tmp_path: Path) -> None:
    Image.new("RGB", (16, 12)).save(tmp_path / "a.png")
    dataset = DetectionDataset(Annotations(["a"], records(tmp_path / "a.png", 3), "memory"))
    before = dataset[1][1]
    dataset.share()
    sent = pickle.loads(pickle.dumps(dataset))  # as to a process that is not forked
    assert isinstance(sent.annotations.records, PackedRecords) and len(sent) == 3
    for one in (dataset, sent):
        after = one[1][1]
        assert all(torch.equal(before[key], after[key]) for key in before)


def hashes(loader: Any) -> list[str]:
    """One of every batch: pixels and targets."""
    found = []
    for batch in loader:
        digest = hashlib.sha256(batch.images.contiguous().numpy().tobytes())
        for target in batch.targets:
            for key in sorted(target):
                digest.update(key.encode() + target[key].contiguous().numpy().tobytes())
        found.append(digest.hexdigest())
    return found


def test_every_batch_is_the_same_with_any_number_of_workers(shared_data: Path) -> None:
    transforms = from_names(["hflip", "photometric", "iou_crop", {"expand": {"max_ratio": 2}}])
    prepare = Preprocess(90, 64, 107, (0.5,) * 3, (0.25,) * 3)
    seen: dict[int, list[list[str]]] = {}
    for workers in (0, 2, 4):
        dataset = open_dataset(shared_data / "tiny_coco", "train", transforms=transforms, seed=5)
        loader = build_loader(dataset, 8, prepare, workers=workers, seed=5)
        seen[workers] = []
        for epoch in (0, 3):
            loader.set_epoch(epoch, start=3)
            seen[workers].append(hashes(loader))
    assert seen[0] == seen[2] == seen[4]
    first, second = seen[0]
    assert len(first) == len(second) == 4 and len({*first, *second}) == 8


def private(pid: int) -> float:
    """MiB that a process shares with no other."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    sizes = {line.split(":")[0]: line.split()[1] for line in lines[1:]}
    return (int(sizes["Private_Clean"]) + int(sizes["Private_Dirty"])) / 1024


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's /proc")
def test_workers_do_not_copy_the_annotations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 30 MB of annotations in Python objects, that each worker reads in three epochs."""

    def looked_at(segmentations: list[Any], height: int, width: int) -> np.ndarray:
        assert sum(sum(outline) for [outline] in segmentations) > 0
        return np.zeros((len(segmentations), height, width), bool)

    monkeypatch.setattr(annotated, "read_image", lambda *_: torch.zeros(3, 12, 16))
    monkeypatch.setattr(datasets, "decode_masks", looked_at)
    found = Annotations(["a"], records(tmp_path / "a.png", 2000), "memory")
    count: Any = lambda images, targets: len(images)  # noqa: E731
    loader = build_loader(DetectionDataset(found, masks=True), 16, count, workers=2)
    steps = iter(loader)
    next(steps)
    pids = [worker.pid for worker in steps._workers]  # type: ignore[attr-defined]
    before = [private(pid) for pid in pids]
    for _ in steps:
        pass
    for epoch in (1, 2):
        loader.set_epoch(epoch)
        assert sum(loader) == 2000
    grown = [private(pid) - size for pid, size in zip(pids, before, strict=True)]
    assert max(grown) < 8
