"""Batches in an order, and with a randomness, that depend on (seed, epoch) alone."""

from __future__ import annotations

import gc
import random
import signal
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Sampler, Subset

from eyeline.errors import EyelineError
from eyeline.processes import place, turns
from eyeline.structures import Batch, Target

Key = tuple[int, ...]  # epoch, index, and where sizes change the size
Prepare = Callable[[list[Tensor], list[Target]], Batch]
SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE = 30  # seconds that a worker has left after a signal that is meant for the main process


class Loader(DataLoader[Any]):
    """A DataLoader whose epoch and first batch can be set; its length is that of the epoch, with
    the batches before `start`."""

    batch_sampler: BatchSampler

    def set_epoch(self, epoch: int, start: int = 0, dealt: Sequence[Sequence[int]] = ()) -> None:
        """The next iteration is this epoch's, from batch `start` on (to resume within it).

        `dealt`: batches of it that were dealt before, in other sizes, as (pictures of one, of all
        processes together; how many such batches); those left are dealt anew, each once.
        """
        sampler = self.batch_sampler
        sampler.epoch, sampler.start, sampler.dealt = epoch, start, dealt

    def __iter__(self) -> Any:
        with _signals_later():  # workers begin here, and are to know first what to do about them
            return super().__iter__()

    def picture(self, batch: int, i: int) -> tuple[int, Path | None]:
        """Index of the i-th picture of a batch of the epoch, and its file where that is told."""
        index = self.batch_sampler.batch(batch)[i]
        return index, path_of(self.dataset.dataset, index)  # type: ignore[attr-defined]


def build_loader(
    dataset: Dataset[tuple[Tensor, Target]],
    batch_size: int,
    prepare: Prepare | None = None,
    shuffle: bool = True,
    workers: int = 0,
    seed: int = 0,
    aspect_grouping: bool = False,
    sizes: Sequence[int] = (),
    sizes_every: int = 10,
) -> Loader:
    """A loader of Batches, if `prepare` is given (it runs in the workers), else of
    (images, targets), two lists.

    Of several processes each gets its share of every batch, of the last one perhaps a picture less
    than others (if there are fewer than processes, some come twice: each process has to have one).
    Not shuffled, to measure by, it gets whole batches in turn, of the last perhaps none.

    Args:
        dataset: any that yields (image, target). If it has `set_epoch`, that is called with the
            epoch before each picture, in whichever process; whatever it draws from random,
            numpy.random or torch is seeded by (seed, epoch, index).
        batch_size: pictures a batch, of this process.
        aspect_grouping: batches of pictures that are all wider than high, or none of them: less
            of a batch is padding.
        sizes: another of them every `sizes_every` batches, drawn by (seed, epoch, batch): the
            `size` of the targets, which `prepare` takes for its shorter side.

    Raises:
        EyelineError: aspect grouping of data that has no `annotations` to tell the sizes.
    """
    rank, world_size = place()
    wide = None
    if aspect_grouping:
        annotations = getattr(dataset, "annotations", None)
        if annotations is None:
            raise EyelineError(
                "data.aspect_grouping needs the pictures' sizes before they are read, which "
                f"{type(dataset).__name__} does not tell; set it to false"
            )
        wide = np.array([record.width > record.height for record in annotations.records])
    count = len(dataset)  # type: ignore[arg-type]
    if workers:
        for one in _within(dataset):
            if hasattr(one, "share"):
                one.share()
    sampler = BatchSampler(
        count, batch_size, shuffle, seed, wide, rank, world_size, sizes, sizes_every
    )
    if not shuffle:
        sampler = BatchesInTurn(count, batch_size, shuffle, seed, wide)
    return Loader(
        _Seeded(dataset, seed),
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=partial(_collate, prepare=prepare),
        worker_init_fn=_begin_worker,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


class BatchSampler(Sampler[list[Key]]):
    """Lists of (epoch, index), or with sizes (epoch, index, size). The epoch travels with the
    index, so that workers which live through several epochs need no other news of it."""

    def __init__(
        self,
        count: int,
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        wide: np.ndarray | None = None,
        rank: int = 0,
        world_size: int = 1,
        sizes: Sequence[int] = (),
        sizes_every: int = 10,
    ) -> None:
        self.sizes, self.sizes_every = sizes, sizes_every
        self.count, self.batch_size, self.shuffle, self.seed = count, batch_size, shuffle, seed
        self.wide, self.rank, self.world_size = wide, rank, world_size
        self.whole = batch_size * world_size  # pictures that all processes take at once
        self.epoch = self.start = 0
        self.dealt: Sequence[Sequence[int]] = ()

    def __len__(self) -> int:
        left = self.count - sum(whole * batches for whole, batches in self.dealt)
        return -(-max(left, 0) // self.whole)

    def __iter__(self) -> Iterator[list[Key]]:
        order, epoch = self.order(), self.epoch
        for i in range(self.start, len(self)):
            yield [(epoch, index, *self.size(i)) for index in self._share(order, i)]

    def size(self, i: int) -> tuple[int, ...]:
        """That of batch i of this epoch; none where sizes do not change."""
        if not self.sizes:
            return ()
        rng = np.random.default_rng((self.seed, self.epoch, 1, i // self.sizes_every))
        return (int(rng.choice(np.asarray(self.sizes))),)

    def batch(self, i: int) -> list[int]:
        """Indices of this process's pictures in batch i of this epoch."""
        return self._share(self.order(), i)

    def _share(self, order: np.ndarray, i: int) -> list[int]:
        batch = order[i * self.whole : (i + 1) * self.whole][self.rank :: self.world_size]
        return [int(index) for index in batch]

    def order(self) -> np.ndarray:
        """Indices of what is left of this epoch after `dealt`, of all processes; for the last
        batch at least as many as these."""
        rng = np.random.default_rng((self.seed, self.epoch))
        order = rng.permutation(self.count) if self.shuffle else np.arange(self.count)
        for k, (whole, batches) in enumerate(self.dealt, 1):
            order = self._arranged(order, whole, rng)[whole * batches :]
            rng = np.random.default_rng((self.seed, self.epoch, 0, k))
        order = self._arranged(order, self.whole, rng)
        missing = self.world_size - len(order) % self.whole
        few = 0 < missing < self.world_size
        return np.resize(order, len(order) + missing) if few else order

    def _arranged(self, order: np.ndarray, whole: int, rng: np.random.Generator) -> np.ndarray:
        """Where shapes are kept apart: whole batches of one shape in random order, then what is
        left over of both."""
        if self.wide is None:
            return order
        wide = self.wide[order]
        batches, rest = [], []
        for shape in (order[wide], order[~wide]):
            end = len(shape) // whole * whole
            batches.append(shape[:end].reshape(-1, whole))
            rest.append(shape[end:])
        together = np.concatenate(batches)
        if self.shuffle:
            together = rng.permutation(together)
        return np.concatenate([together.ravel(), *rest])


class BatchesInTurn(BatchSampler):
    """The batches of one process, each taken by one of several."""

    def __iter__(self) -> Iterator[list[Key]]:
        order, epoch = self.order(), self.epoch
        for i in turns(len(self)):
            if i >= self.start:
                yield [(epoch, index) for index in self._share(order, i)]


class _Seeded(Dataset[Any]):
    """A data set asked by (epoch, index)."""

    def __init__(self, dataset: Dataset[Any], seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, key: Key) -> Any:
        epoch, index, *size = key
        _set_epoch(self.dataset, epoch)
        with random_state(self.seed, epoch, index):
            image, target = self.dataset[index]
        if isinstance(target, dict):  # what a model draws for the picture depends on the same
            target = {**target, "seed": torch.tensor(_words(self.seed, epoch, index)[0])}
            if size:
                target["size"] = torch.tensor(size[0])
        return image, target


def _begin_worker(worker: int) -> None:
    _keep_shared()
    _outlast_signals()


def _outlast_signals() -> None:
    """Ctrl-C and a scheduler's SIGTERM reach the workers too. The main process may need some more
    batches of them until it has saved; then, or GRACE seconds later, they end."""

    def heard(number: int, frame: object) -> None:
        if hasattr(signal, "alarm"):  # not on Windows
            signal.alarm(GRACE)

    for number in SIGNALS:
        signal.signal(number, heard)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextmanager
def _signals_later() -> Iterator[None]:
    """Within, and in processes that are forked within, SIGNALS wait (not on Windows)."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def path_of(dataset: Any, index: int) -> Path | None:
    """The file of a picture, also of one within torch's Subset and ConcatDataset; None: the data
    set does not tell."""
    if isinstance(dataset, Subset):
        return path_of(dataset.dataset, dataset.indices[index])
    if isinstance(dataset, ConcatDataset):
        starts = [0, *dataset.cumulative_sizes]
        part = bisect_right(starts, index) - 1
        return path_of(dataset.datasets[part], index - starts[part])
    records = getattr(getattr(dataset, "annotations", None), "records", None)
    return getattr(records[index], "path", None) if records is not None else None


def _set_epoch(dataset: Any, epoch: int) -> None:
    for one in _within(dataset):
        if hasattr(one, "set_epoch"):
            one.set_epoch(epoch)


def _within(dataset: Any) -> Iterator[Any]:
    """The data set and, through torch's Subset and ConcatDataset, those within."""
    yield dataset
    for inner in (getattr(dataset, "dataset", None), *getattr(dataset, "datasets", ())):
        if inner is not None:
            yield from _within(inner)


def _keep_shared() -> None:
    """The garbage collector writes to every object it looks at, and a page of memory that is
    written to is copied: let it pass over all that the worker shares with its parent."""
    gc.freeze()


@contextmanager
def random_state(*key: int) -> Iterator[None]:
    """Within, the global generators begin at a state that `key` gives; after, as before."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    a, b, c = _words(*key)
    random.seed(a)
    np.random.seed(b)
    torch.default_generator.manual_seed(c)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def _words(*key: int) -> list[int]:
    """Three random words of 32 bits that depend on nothing but the key."""
    return [int(word) for word in np.random.SeedSequence(key).generate_state(3)]


def _collate(samples: Sequence[tuple[Tensor, Target]], prepare: Prepare | None) -> Any:
    images, targets = [image for image, _ in samples], [target for _, target in samples]
    return prepare(images, targets) if prepare else (images, targets)
