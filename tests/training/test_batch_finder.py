"""The search for a batch size: where it ends, and what it picks."""

from __future__ import annotations

import mmap
import time

import pytest
import torch
from torch import nn
from toys import ToyData, ToyDetector

from eyeline.errors import EyelineError
from eyeline.training import batch_finder, find_batch_size
from eyeline.training.batch_finder import Trial

QUICK = {"data": {"workers": 0}, "optimizer": {"name": "sgd"}}


class Costly(ToyDetector):
    """Takes a time and holds so many pictures."""

    holds, seconds, each, error = 1000, 0.0, 0.0, torch.OutOfMemoryError("out of memory")

    def __init__(self) -> None:
        super().__init__(nn.LayerNorm)  # batch norm of vectors needs two

    def forward(self, images, targets=None):
        if len(images) > self.holds:
            raise self.error
        time.sleep(self.seconds + self.each * len(images))
        return super().forward(images, targets)


def costly(**options) -> Costly:
    return type("Now", (Costly,), options)()


def sizes(found) -> list[int]:
    return [trial.batch_size for trial in found.trials]


def test_ends_with_the_pictures_or_at_the_largest():
    model = costly()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    told = []
    found = find_batch_size(model, ToyData(11), tell=told.append, **QUICK)
    assert sizes(found) == [1, 2, 4, 8] and told == found.trials
    assert found.ended == "there are 11 pictures"
    assert all(t.pictures_per_second > 0 and t.memory > 1e6 for t in found.trials)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    found = find_batch_size(costly(), ToyData(64), largest=4, **QUICK)
    assert sizes(found) == [1, 2, 4] and found.ended == "4 was the largest to try"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ..."),
    ],
)
def test_memory_that_is_exhausted(error):
    found = find_batch_size(costly(holds=5, error=error), ToyData(64), **QUICK)
    assert sizes(found) == [1, 2, 4] and found.ended == "8 pictures do not fit in memory"
    with pytest.raises(EyelineError, match="1 pictures do not fit in memory; make the pictures"):
        find_batch_size(costly(holds=0, error=error), ToyData(64), **QUICK)


def test_other_errors_are_not_taken_for_it():
    with pytest.raises(RuntimeError, match="shapes"):
        find_batch_size(costly(holds=2, error=RuntimeError("shapes")), ToyData(64), **QUICK)


def test_a_computer_is_not_filled(monkeypatch):
    """10 MB a picture beside 100 MB, with 100 MB free: 16 pictures would need 160."""
    monkeypatch.setattr(batch_finder, "free_memory", lambda: 100e6)
    monkeypatch.setattr(batch_finder, "_resident", lambda: 100e6)
    largest = []

    class Memory(Costly):
        def forward(self, images, targets=None):
            largest.append(len(images))
            return super().forward(images, targets)

    monkeypatch.setattr(batch_finder._Memory, "used", lambda _: 100e6 + 10e6 * max(largest))
    found = find_batch_size(Memory(), ToyData(64), memory_fraction=0.9, device="cpu", **QUICK)
    assert max(largest) == 8 == sizes(found)[-1]
    assert found.ended == "16 pictures would need more than 90% of the memory"


@pytest.mark.skipif(not batch_finder.CLEAR.exists(), reason="only Linux resets the peak")
def test_memory_that_was_given_back_does_not_count():
    """What earlier work of the process took, and a larger trial before, is no longer in use."""
    memory = batch_finder._Memory(torch.device("cpu"), 0.8)

    def peak_while(megabytes: int) -> float:
        memory.start()
        pages = megabytes * 10**6 // mmap.PAGESIZE  # not by malloc, which may have some to spare
        with mmap.mmap(-1, pages * mmap.PAGESIZE) as block:
            block[:: mmap.PAGESIZE] = b"x" * pages  # takes them; given back at once
        return memory.used() - batch_finder._resident()

    assert peak_while(400) > 350e6
    assert 40e6 < peak_while(60) < 150e6


def test_slow_steps_end_it():
    found = find_batch_size(costly(each=0.02), ToyData(64), seconds=0.05, **QUICK)
    assert sizes(found)[-1] < 8
    assert found.ended == f"a step of {sizes(found)[-1]} pictures takes over 0.05 s"


@pytest.mark.parametrize(
    ("speeds", "picked"), [([10, 20, 30, 31], 4), ([10, 10.2, 9, 8], 1), ([1, 2, 4, 8], 8)]
)
def test_picks_the_smallest_that_is_nearly_fastest(monkeypatch, speeds, picked):
    trials = iter([Trial(2**i, speed, 1e6) for i, speed in enumerate(speeds)])
    monkeypatch.setattr(batch_finder, "_measure", lambda *arguments: next(trials))
    found = find_batch_size(costly(), ToyData(64), largest=8, **QUICK)
    assert sizes(found) == [1, 2, 4, 8] and found.batch_size == picked


def test_speed_is_of_whole_steps():
    found = find_batch_size(costly(seconds=0.05), ToyData(64), largest=2, **QUICK)
    assert all(t.pictures_per_second < t.batch_size / 0.05 for t in found.trials)


def test_free_memory():
    assert 1e6 < batch_finder.free_memory() < 1e14
    assert batch_finder._resident() > 1e7
