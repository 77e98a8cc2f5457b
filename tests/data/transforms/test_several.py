"""Mosaic, mix-up and copy-paste by hand, and how they get their other pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.data.transforms.drawn import equal, scene
from torch import Tensor

from eyeline.data.datasets import DetectionDataset
from eyeline.data.formats import Annotations, Record
from eyeline.data.loader import build_loader
from eyeline.data.transforms import (
    Compose,
    CopyPaste,
    HorizontalFlip,
    MixUp,
    Mosaic,
    Photometric,
    from_names,
    uses_others,
    without_others,
)
from eyeline.errors import EyelineError
from eyeline.structures import Target

Sample = tuple[Tensor, Target]


def plain(value: int, height: int, width: int, boxes: list[list[int]], label: int = 0) -> Sample:
    """A picture of one grey with objects that fill their boxes."""
    masks = torch.zeros(len(boxes), height, width, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
    return torch.full((3, height, width), value, dtype=torch.uint8), {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.full((len(boxes),), label),
        "iscrowd": torch.zeros(len(boxes), dtype=torch.bool),
        "masks": masks,
    }


def given(*samples: Sample) -> Callable[[], Sample]:
    rest = iter(samples)
    return lambda: next(rest)


def test_a_mosaic_by_hand() -> None:
    """Four pictures of 10x20 about the middle of a square of 20: all 10 high, cut to 10 wide."""
    samples = [plain(v, 10, 20, [[5, 2, 15, 8]], v) for v in (10, 20, 30, 40)]
    mosaic = Mosaic(20, centre=(0.5, 0.5))
    image, target = mosaic(*samples[0], np.random.default_rng(0), given(*samples[1:]))
    assert image.shape == (3, 20, 20) and image.permute(1, 2, 0).is_contiguous()
    expected = torch.tensor([[10, 20], [30, 40]], dtype=torch.uint8)
    assert torch.equal(image[0], expected.repeat_interleave(10, 0).repeat_interleave(10, 1))
    assert target["labels"].tolist() == [10, 20, 30, 40]
    left, right = [0, 2, 5, 8], [15, 2, 20, 8]  # the right picture halves, the left ones too
    assert target["boxes"].tolist()[:2] == [left, right]
    assert target["boxes"].tolist()[2:] == [[0, 12, 5, 18], [15, 12, 20, 18]]
    assert target["masks"].flatten(1).sum(1).tolist() == [30] * 4


def test_a_mosaic_of_small_pictures_leaves_grey() -> None:
    samples = [plain(v, 4, 20, []) for v in (10, 20, 30, 40)]
    image, target = Mosaic(20, fill=1.0)(*samples[0], np.random.default_rng(3), given(*samples[1:]))
    assert len(target["boxes"]) == 0 and target["masks"].shape == (0, 20, 20)
    assert (image == 255).sum() == 3 * 20 * (20 - 8)  # two rows of pictures, each 4 high


def test_where_the_centre_lies() -> None:
    samples = [plain(v, 100, 100, []) for v in (10, 20, 30, 40)]
    rng = np.random.default_rng(0)
    centres = []
    for _ in range(200):
        image, _ = Mosaic(100)(*samples[0], rng, given(*samples[1:]))
        centres.append([int((image[0, :, 0] == 10).sum()), int((image[0, 0] == 10).sum())])
    low, high = np.min(centres, 0), np.max(centres, 0)
    assert (low >= 25).all() and (low < 28).all() and (high <= 75).all() and (high > 72).all()


def test_objects_of_which_little_is_seen() -> None:
    """Of each picture a quarter is seen: of the first object 9/10 or 1/10 of its width, of the
    second 10/11 or 1/11."""
    samples = [plain(0, 20, 20, [[9, 0, 19, 10], [9, 10, 20, 20]]) for _ in range(4)]

    def count(least: float) -> int:
        mosaic = Mosaic(20, centre=(0.5, 0.5), min_visible=least)
        return len(mosaic(*samples[0], np.random.default_rng(0), given(*samples[1:]))[1]["boxes"])

    assert [count(least) for least in (0, 0.09, 0.095, 0.11, 0.905, 0.95)] == [4, 4, 3, 2, 1, 0]


def test_a_mixture_by_hand() -> None:
    first, second = plain(100, 10, 20, [[1, 1, 5, 5]], 1), plain(200, 15, 10, [[2, 2, 9, 12]], 2)
    image, target = MixUp(p=1)(*first, np.random.default_rng(0), given(second))
    assert image.shape == (3, 15, 20) and image.dtype == torch.uint8
    weight = float(image[0, 5, 15]) / 100  # there the first lies alone
    assert 0.2 < weight < 0.8
    assert abs(float(image[0, 12, 5]) - (1 - weight) * 200) <= 2  # and here the second
    assert abs(float(image[0, 5, 5]) - weight * 100 - (1 - weight) * 200) <= 3
    assert (image[:, 10:, 10:] == 0).all()
    assert target["boxes"].tolist() == [[1, 1, 5, 5], [2, 2, 9, 12]]
    assert target["labels"].tolist() == [1, 2] and target["masks"].shape == (2, 15, 20)
    assert target["masks"].flatten(1).sum(1).tolist() == [16, 70]


def test_alpha_spreads_the_weights() -> None:
    first, second = plain(200, 4, 4, []), plain(0, 4, 4, [])
    rng = np.random.default_rng(0)

    def spread(alpha: float) -> float:
        mixed = [MixUp(alpha, p=1)(*first, rng, given(second))[0][0, 0, 0] for _ in range(200)]
        return float(torch.stack(mixed).float().std()) / 200

    assert spread(32) == pytest.approx(1 / (2 * 65**0.5), rel=0.2)  # of a Beta distribution
    assert spread(1) == pytest.approx(1 / 12**0.5, rel=0.2)


def test_a_paste_by_hand() -> None:
    """The pasted object hides one whole, halves one, and leaves one as it is."""
    below = plain(10, 20, 20, [[6, 6, 8, 8], [5, 0, 10, 10], [12, 12, 20, 20]], 1)
    below[1]["keypoints"] = torch.tensor([[[7.0, 7, 2]], [[7.0, 2, 2]], [[15.0, 15, 1]]])
    below[1]["keypoints"] = torch.cat([below[1]["keypoints"], torch.zeros(3, 1, 3)], 1)
    below[1]["keypoints"][1, 1] = torch.tensor([6.0, 9, 2])
    above = plain(90, 20, 20, [[2, 5, 11, 10]], 2)
    above[1]["keypoints"] = torch.full((1, 2, 3), 2.0)
    image, target = CopyPaste(p=1)(*below, np.random.default_rng(0), given(above))
    assert (image[:, 5:10, 2:11] == 90).all() and (image == 90).sum() == 3 * 45
    assert target["labels"].tolist() == [1, 1, 2]
    assert target["boxes"].tolist() == [[5, 0, 10, 5], [12, 12, 20, 20], [2, 5, 11, 10]]
    assert target["masks"].flatten(1).sum(1).tolist() == [25, 64, 45]
    assert target["keypoints"][0].tolist() == [[7, 2, 2], [6, 9, 1]]  # the second is hidden now
    assert target["keypoints"][1].tolist() == [[15, 15, 1], [0, 0, 0]]
    some = CopyPaste(min_visible=0.6, p=1)(*below, np.random.default_rng(0), given(above))[1]
    assert some["labels"].tolist() == [1, 2]


def test_any_number_is_pasted_but_no_crowd() -> None:
    boxes = [[i, 0, i + 1, 5] for i in range(6)]
    below, above = plain(0, 6, 6, []), plain(9, 6, 6, boxes, 1)
    above[1]["iscrowd"][0] = True
    rng = np.random.default_rng(0)
    results = [CopyPaste(p=1)(*below, rng, given(above))[1] for _ in range(200)]
    assert {len(result["boxes"]) for result in results} == {1, 2, 3, 4, 5}
    lefts = {int(box[0]) for result in results for box in result["boxes"]}
    assert lefts == {1, 2, 3, 4, 5}
    only_crowd = plain(9, 6, 6, boxes[:1]), below
    only_crowd[0][1]["iscrowd"][0] = True
    assert CopyPaste(p=1)(*below, rng, given(only_crowd[0]))[0] is below[0]


def test_a_smaller_picture_lies_inside_a_larger_one_covers() -> None:
    rng = np.random.default_rng(0)
    tall = plain(5, 30, 4, [[0, 0, 4, 30]])
    image, below = plain(0, 10, 20, [])
    places = set()
    for _ in range(100):
        _, target = CopyPaste(p=1)(image, below, rng, given(tall))
        [[x1, y1, x2, y2]] = target["boxes"].tolist()
        assert (y1, y2) == (0, 10) and x2 - x1 == 4
        places.add(x1)
    assert min(places) == 0 and max(places) == 16 and len(places) == 17


def test_masks_are_needed_to_paste() -> None:
    image, target = plain(0, 6, 6, [[0, 0, 3, 3]])
    bare = image, {key: value for key, value in target.items() if key != "masks"}
    for samples in ((bare, (image, target)), ((image, target), bare)):
        with pytest.raises(EyelineError, match=r"'copy_paste' .* masks=True"):
            CopyPaste(p=1)(*samples[0], np.random.default_rng(0), given(samples[1]))


@pytest.mark.parametrize("name", ["mosaic", "mixup", "copy_paste"])
def test_without_other_pictures_it_says_so(name: str) -> None:
    chain = from_names(["hflip", {name: {"p": 1}}])
    assert chain.uses_others and not from_names(["hflip"]).uses_others
    with pytest.raises(EyelineError, match=f"'{name}' takes other pictures .* DetectionDataset"):
        chain(*scene(5), np.random.default_rng(0))
    never = from_names([{name: {"p": 0}}])
    image, target = scene(5)
    assert never(image, target, np.random.default_rng(0))[0] is image


def test_float_pictures_stay_float() -> None:
    samples = [(image / 255, target) for image, target in (scene(k) for k in range(2, 9))]
    for transform in (Mosaic(50), MixUp(p=1), CopyPaste(p=1)):
        image, _ = transform(*samples[0], np.random.default_rng(0), given(*samples[1:]))
        assert image.dtype == torch.float32 and 0 <= image.min() and image.max() <= 1


# Other pictures come through all that stands before


def test_others_come_through_what_stands_before() -> None:
    """Each of the four is flipped before, by a draw of its own."""
    mosaic = Compose([HorizontalFlip(0.5), Mosaic(20, centre=(0.5, 0.5))])
    marked = [plain(0, 20, 20, []) for _ in range(4)]
    for image, _ in marked:
        image[:, :, :1] = 255  # on the left, or flipped on the right
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(60):
        image, _ = mosaic(*marked[0], rng, given(*marked[1:]))
        seen.add(tuple(tuple((image[0, y, [0, 9, 10, 19]] > 0).tolist()) for y in (5, 15)))
    # To the left the right half of a picture is seen, marked if flipped; to the right the left.
    assert len(seen) == 16
    assert all(not (row[0] or row[3]) for rows in seen for row in rows)


def test_colours_change_before_pictures_are_put_together() -> None:
    brighter = Photometric(brightness=0.5, contrast=(1, 1), saturation=(1, 1), hue=0, p=1)
    samples = [plain(100, 20, 20, []) for _ in range(4)]
    image, _ = Compose([brighter, Mosaic(20)])(
        *samples[0], np.random.default_rng(0), given(*samples[1:])
    )
    assert len(image.unique()) == 4  # each by its own draw


def test_without_others() -> None:
    chain = from_names(["hflip", "mosaic", "mixup", "vflip"])
    alone = without_others(chain)
    assert not uses_others(alone) and uses_others(chain)
    sample = scene(7)
    rngs = np.random.default_rng(3), np.random.default_rng(3)
    assert equal(alone(*sample, rngs[0]), from_names(["hflip", "vflip"])(*sample, rngs[1]))
    assert not uses_others(without_others(Mosaic()))
    flip = HorizontalFlip()
    assert without_others(flip) is flip


# In a data set


@pytest.fixture
def annotations(tmp_path: Path) -> Annotations:
    """Eight scenes as files."""
    records = []
    for i in range(8):
        image, target = scene(i + 20)
        path = tmp_path / f"{i}.png"
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
        count = len(target["boxes"])
        corners = [
            [[x1, y1, x2, y1, x2, y2, x1, y2]] for x1, y1, x2, y2 in target["boxes"].tolist()
        ]
        records.append(
            Record(
                path, image.shape[2], image.shape[1], target["boxes"].numpy(),
                np.zeros(count, np.int64), target["iscrowd"].numpy(), corners, i,
                [f"here:{k}" for k in range(count)],
            )
        )  # fmt: skip
    return Annotations(["shape"], records, "memory")


CHAIN: list[Any] = [
    "hflip",
    {"copy_paste": {"p": 0.8}},
    {"mosaic": {"size": 64, "p": 0.8}},
    "mixup",
]


def test_seed_epoch_and_index_decide(annotations: Annotations) -> None:
    """Whatever the workers and the order; another epoch or seed gives other pictures."""

    def pictures(workers: int, seed: int = 0, epoch: int = 1) -> list[Sample]:
        dataset = DetectionDataset(annotations, from_names(CHAIN), masks=True, seed=seed)
        loader = build_loader(dataset, 2, shuffle=False, workers=workers, seed=seed)
        loader.set_epoch(epoch)
        return [
            # The loader tells the network a seed besides; the rest is the data set's.
            (image, {name: value for name, value in target.items() if name != "seed"})
            for images, targets in loader
            for image, target in zip(images, targets, strict=True)
        ]

    expected = pictures(0)
    for workers in (1, 2):
        assert all(map(equal, pictures(workers), expected))
    dataset = DetectionDataset(annotations, from_names(CHAIN), masks=True)
    dataset.set_epoch(1)
    backwards = [dataset[i] for i in reversed(range(8))]
    assert all(map(equal, reversed(backwards), expected))
    for other in (pictures(0, epoch=2), pictures(0, seed=1)):
        assert sum(map(equal, other, expected)) <= 2


def test_any_picture_is_drawn(annotations: Annotations) -> None:
    """Each picture's grey tells which it is."""
    for i, record in enumerate(annotations.records):
        Image.new("L", (record.width, record.height), 30 * i + 5).save(record.path)
    dataset = DetectionDataset(annotations, Mosaic(40, fill=1.0))
    drawn: dict[int, int] = {}
    for epoch in range(12):
        dataset.set_epoch(epoch)
        for i in range(8):
            image, target = dataset[i]
            assert target["image_id"] == i
            greys = {int(value) for value in image.unique() if value % 30 == 5}
            assert 30 * i + 5 in greys
            for grey in greys - {30 * i + 5}:
                drawn[grey] = drawn.get(grey, 0) + 1
    assert len(drawn) == 8 and min(drawn.values()) > 8


def test_the_last_epochs_are_of_single_pictures(annotations: Annotations) -> None:
    dataset = DetectionDataset(annotations, from_names(["hflip", "mosaic"]), single_from=2)
    alone = DetectionDataset(annotations, from_names(["hflip"]))
    for epoch, single in ((0, False), (1, False), (2, True), (3, True)):
        dataset.set_epoch(epoch)
        alone.set_epoch(epoch)
        assert [equal(dataset[i], alone[i]) for i in range(8)] == [single] * 8
