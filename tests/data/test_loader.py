from __future__ import annotations

import os
import random
import signal
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset

from eyeline.data.loader import BatchSampler, build_loader
from eyeline.errors import EyelineError
from eyeline.nn.detector import Preprocess
from eyeline.processes import in_order


class Numbers(Dataset[Any]):
    """Each picture tells its index, the epoch, and what the random generators gave."""

    def __init__(self, count: int = 11) -> None:
        self.count, self.epoch = count, -1

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        drawn = [random.random(), np.random.random(), torch.rand(()).item()]
        values = torch.tensor([index, self.epoch, *drawn], dtype=torch.float64)
        return torch.full((3, 1, 1), index), {"values": values}


def indices(loader: Any) -> list[list[int]]:
    return [[int(image[0, 0, 0]) for image in images] for images, _ in loader]


def values(loader: Any) -> list[list[float]]:
    return [target["values"].tolist() for _, targets in loader for target in targets]


def test_every_picture_once_in_an_order_of_seed_and_epoch() -> None:
    loader = build_loader(Numbers(), 4, seed=3)
    first = indices(loader)
    assert [len(batch) for batch in first] == [4, 4, 3] and len(loader) == 3
    assert sorted(chain(*first)) == list(range(11)) != list(chain(*first))
    assert indices(loader) == first
    loader.set_epoch(1)
    second = indices(loader)
    assert sorted(chain(*second)) == list(range(11)) and second != first
    other = build_loader(Numbers(), 4, seed=3)
    other.set_epoch(1)
    assert indices(other) == second
    assert indices(build_loader(Numbers(), 4, seed=4)) != first


def test_without_shuffling() -> None:
    assert indices(build_loader(Numbers(5), 2, shuffle=False)) == [[0, 1], [2, 3], [4]]


def test_resuming_within_an_epoch() -> None:
    loader = build_loader(Numbers(), 2, seed=1)
    loader.set_epoch(5)
    whole = indices(loader)
    loader.set_epoch(5, start=4)
    assert indices(loader) == whole[4:] and len(loader) == 6
    loader.set_epoch(6)
    assert len(indices(loader)) == 6


def test_workers_know_the_epoch_and_change_nothing() -> None:
    """Workers that live through several epochs give what this process alone would."""
    alone, helped = (build_loader(Numbers(6), 2, workers=workers) for workers in (0, 2))
    for epoch, start in ((0, 0), (1, 0), (7, 1)):
        for loader in (alone, helped):
            loader.set_epoch(epoch, start)
        expected = values(alone)
        assert values(helped) == expected
        assert {row[1] for row in expected} == {epoch}


class Signalled(Numbers):
    """Its workers get the signals of a whole process group."""

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        assert torch.utils.data.get_worker_info() is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        return super().__getitem__(index)


def test_workers_outlast_signals() -> None:
    loader = build_loader(Signalled(6), 2, shuffle=False, workers=2)
    assert indices(loader) == [[0, 1], [2, 3], [4, 5]]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


def test_randomness_is_of_seed_epoch_and_index_and_leaves_no_trace() -> None:
    def drawn(seed: int, epoch: int, shuffle: bool) -> dict[float, tuple[float, ...]]:
        loader = build_loader(Numbers(4), 3, seed=seed, shuffle=shuffle)
        loader.set_epoch(epoch)
        return {row[0]: tuple(row[2:]) for row in values(loader)}

    assert drawn(0, 0, True) == drawn(0, 0, False)
    every = [v for s, e in ((0, 0), (0, 1), (1, 0)) for v in drawn(s, e, True).values()]
    assert len(set(every)) == 12 and len({number for row in every for number in row}) == 36

    loader = build_loader(Numbers(4), 3)
    iter(loader)  # a DataLoader draws a base seed itself
    for draw in (random.random, np.random.random, lambda: torch.rand(()).item()):
        random.seed(0), np.random.seed(0), torch.manual_seed(0)
        expected = draw()
        random.seed(0), np.random.seed(0), torch.manual_seed(0)
        loader.dataset[(0, 1)]
        assert draw() == expected


def prepare(images: list[Tensor], targets: list[dict[str, Tensor]]) -> SimpleNamespace:
    return SimpleNamespace(images=torch.stack(images), count=len(targets))


@pytest.mark.parametrize("workers", [0, 1])
def test_prepare_makes_the_batch(workers: int) -> None:
    batches = list(build_loader(Numbers(3), 2, prepare, shuffle=False, workers=workers))
    assert [batch.count for batch in batches] == [2, 1]
    assert batches[0].images.shape == (2, 3, 1, 1)


def test_datasets_without_epochs() -> None:
    pictures = [(torch.zeros(3, 1, 1), {"index": torch.tensor(i)}) for i in range(3)]
    loader = build_loader(pictures, 1, shuffle=False)  # type: ignore[arg-type]
    assert [targets[0]["index"].item() for _, targets in loader] == [0, 1, 2]


def test_datasets_within_datasets_know_the_epoch() -> None:
    dataset = ConcatDataset([Subset(Numbers(4), [0, 2]), Numbers(1)])
    loader = build_loader(dataset, 1, shuffle=False)
    loader.set_epoch(5)
    list(loader)
    assert [dataset.datasets[0].dataset.epoch, dataset.datasets[1].epoch] == [5, 5]


@pytest.mark.parametrize(
    ("count", "last"),
    [(12, [2, 2, 2]), (11, [2, 2, 1]), (9, [1, 1, 1]), (8, [1] * 3), (1, [1] * 3)],
)
def test_processes_share_the_pictures(count: int, last: list[int]) -> None:
    """In equal parts, but for the last batch, of which each gets at least one."""
    samplers = [BatchSampler(count, 2, seed=1, rank=rank, world_size=3) for rank in range(3)]
    batches = [list(sampler) for sampler in samplers]
    assert {len(own) for own in batches} == {len(sampler) for sampler in samplers}
    assert [len(own[-1]) for own in batches] == last
    assert all(len(batch) == 2 for own in batches for batch in own[:-1])
    # Together they take the batches that one process of three times the batch size would.
    whole = list(BatchSampler(count, 6, seed=1))
    for i, expected in enumerate(whole):
        together = [key for own in batches for key in own[i]]
        assert set(together) >= set(expected)
        assert len(together) == max(len(expected), 3)


@pytest.mark.parametrize("count", [11, 3, 1])
def test_what_is_measured_is_dealt_in_whole_batches(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, dealt = indices(build_loader(Numbers(count), 2, shuffle=False)), []
    for rank in range(3):
        monkeypatch.setattr("eyeline.processes.place", lambda rank=rank: (rank, 3))
        monkeypatch.setattr("eyeline.data.loader.place", lambda rank=rank: (rank, 3))
        dealt.append(indices(build_loader(Numbers(count), 2, shuffle=False)))
    assert in_order(dealt) == alone
    assert [len(part) for part in dealt] == [len(alone[rank::3]) for rank in range(3)]


def test_a_picture_brings_the_seed_of_what_is_drawn_for_it() -> None:
    def seeds(epoch: int, seed: int, **options: Any) -> list[int]:
        loader = build_loader(Numbers(4), seed=seed, shuffle=False, **options)
        loader.set_epoch(epoch)
        return [int(target["seed"]) for _, targets in loader for target in targets]

    first = seeds(0, 0, batch_size=1)
    assert seeds(0, 0, batch_size=3, workers=1) == first
    assert len({*first, *seeds(1, 0, batch_size=1), *seeds(0, 1, batch_size=1)}) == 12


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
def test_what_is_left_of_an_epoch_is_dealt_anew(grouped: bool, shuffle: bool) -> None:
    """Twice, to another number of processes and in other sizes: each picture once."""
    wide = np.random.default_rng(0).random(50) > 0.4 if grouped else None

    def dealt(size: int, processes: int, before: list[tuple[int, int]], count: int) -> list[int]:
        found = []
        for rank in range(processes):
            sampler = BatchSampler(50, size, shuffle, 1, wide, rank, processes)
            sampler.epoch, sampler.dealt = 3, before
            batches = list(sampler)[:count]
            assert batches == list(sampler)[:count] and {e for b in batches for e, _ in b} == {3}
            assert [[i for _, i in b] for b in batches] == [
                sampler.batch(k) for k in range(len(batches))
            ]
            found += [index for batch in batches for _, index in batch]
        return found

    first = dealt(4, 1, [], 3)
    second = dealt(2, 3, [(4, 3)], 2)
    third = dealt(5, 2, [(4, 3), (6, 2)], 99)
    assert (len(first), len(second), len(third)) == (12, 12, 26)
    assert sorted(first + second + third) == list(range(50))
    sampler = BatchSampler(50, 5, shuffle, 1, wide, 0, 2)
    assert len(sampler) == 5
    sampler.dealt = [(4, 3), (6, 2)]
    assert len(sampler) == 3
    sampler.dealt = [(4, 13)]  # all of it
    assert len(sampler) == 0 and list(sampler) == []


@pytest.mark.parametrize("shuffle", [True, False])
def test_batches_of_one_shape(shuffle: bool) -> None:
    rng = np.random.default_rng(0)
    wide = rng.random(50) > 0.4
    dataset = Numbers(50)
    dataset.annotations = SimpleNamespace(  # type: ignore[attr-defined]
        records=[SimpleNamespace(width=2 if w else 1, height=1) for w in wide]
    )
    loader = build_loader(dataset, 4, aspect_grouping=True, shuffle=shuffle)
    orders = []
    for epoch in (0, 1):
        loader.set_epoch(epoch)
        batches = indices(loader)
        assert sorted(chain(*batches)) == list(range(50)) and len(batches) == len(loader)
        mixed = [batch for batch in batches if len({bool(wide[i]) for i in batch}) > 1]
        assert len(mixed) <= 2 and all(batch in batches[-2:] for batch in mixed)
        orders.append(batches)
    assert (orders[0] == orders[1]) is not shuffle
    if shuffle:  # the shapes are mixed over the epoch
        first = [bool(wide[batch[0]]) for batch in orders[0][:-2]]
        assert first != sorted(first) and first != sorted(first, reverse=True)


def test_shapes_that_are_not_told() -> None:
    with pytest.raises(EyelineError, match="which Numbers does not tell"):
        build_loader(Numbers(), 2, aspect_grouping=True)


def test_real_pictures(shared_data: Path) -> None:
    from eyeline.data.datasets import open_dataset
    from eyeline.data.transforms import from_names

    chain = from_names(["hflip", "iou_crop"])
    dataset = open_dataset(shared_data / "tiny_coco", "val", transforms=chain, masks=True)
    loader = build_loader(dataset, 2, seed=1)
    loader.set_epoch(3, start=23)
    first, again = list(loader), list(loader)
    assert len(first) == 2
    for (images, targets), (images_again, targets_again) in zip(first, again, strict=True):
        for a, b in zip(images, images_again, strict=True):
            assert torch.equal(a, b)
        for target, other in zip(targets, targets_again, strict=True):
            assert torch.equal(target["boxes"], other["boxes"])
            assert len(target["masks"]) == len(target["labels"])


def test_sizes_change_every_so_many_batches_and_for_all_processes_alike() -> None:
    def sizes(rank: int = 0, world: int = 1, epoch: int = 0, seed: int = 0) -> list[set[int]]:
        sampler = BatchSampler(120, 2, True, seed, None, rank, world, (64, 96, 128), 5)
        sampler.epoch = epoch
        return [{key[2] for key in batch} for batch in sampler]

    one = sizes()
    assert all(len(of_batch) == 1 for of_batch in one)
    assert all(one[i] == one[i - i % 5] for i in range(60))
    assert set().union(*one) == {64, 96, 128}
    assert one == sizes() and one != sizes(epoch=1) and one != sizes(seed=1)
    assert sizes(0, 2) == sizes(1, 2) == one[:30]


class Pictures(Dataset[Any]):
    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        boxes = torch.tensor([[2.0, 4, 10, 16]])
        return torch.zeros(3, 20, 40), {"boxes": boxes, "labels": torch.tensor([0])}


def test_a_batch_has_its_size_and_its_boxes_too() -> None:
    prepared = Preprocess(5, 64, 96, (0.0,) * 3, (1.0,) * 3)
    loader = build_loader(Pictures(), 2, prepared, sizes=(32, 128), sizes_every=1)
    seen = {tuple(batch.sizes[0].tolist()): batch.targets[0]["boxes"] for batch in loader}
    assert seen.keys() == {(24, 48), (96, 192)}  # longer sides of 48 and 192, as 96 to 64
    for (height, width), boxes in seen.items():
        expected = [width / 20, height / 5, width / 4, height * 0.8]
        assert boxes[0].tolist() == pytest.approx(expected)
