"""Which batch size? As many pictures as the memory holds and the speed gains from."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from eyeline.data.loader import build_loader
from eyeline.errors import EyelineError
from eyeline.nn.detector import prepare_of
from eyeline.training.memory import is_lack_of_memory
from eyeline.training.recipe import Recipe
from eyeline.training.recompute import recomputing
from eyeline.training.step import (
    TrialModel,
    loss_scaler,
    seed_generators,
    start_trial,
    train_step,
)
from eyeline.training.system import memory_mb

NEAR = 0.95  # of the best speed: a smaller batch with so much is preferred
CLEAR = Path("/proc/self/clear_refs")  # Linux: 5 in it makes the peak what is held now


@dataclass(frozen=True)
class Trial:
    """A batch size that worked."""

    batch_size: int
    pictures_per_second: float  # of forward, backward and step, without loading
    memory: float  # bytes at most in use: of the GPU, or of the process


@dataclass(frozen=True)
class BatchSizes:
    """What `find_batch_size` found."""

    trials: list[Trial]
    ended: str  # why no larger one was tried
    batch_size: int  # the smallest one nearly as fast as the fastest


def find_batch_size(
    model: nn.Module,
    dataset: Dataset[Any],
    recipe: Recipe | None = None,
    *,
    largest: int = 256,
    memory_fraction: float = 0.8,
    seconds: float = 30.0,
    tell: Callable[[Trial], object] = lambda trial: None,
    **fields: Any,
) -> BatchSizes:
    """Time steps of a copy of the model with batches of 1, 2, 4 ... pictures.

    It ends at `largest`, at the number of pictures there are, once a step takes `seconds`, or
    where memory does: on a GPU when it is exhausted, or more than `memory_fraction` of it in use;
    on a CPU before a batch that is foreseen to need more than `memory_fraction` of what was free.

    Args:
        tell: called after each size.
        fields: of the recipe, over `recipe`.

    Raises:
        EyelineError: model, data and recipe disagree; not even one picture fits.
    """
    copied = start_trial(model, dataset, recipe, fields)
    memory = _Memory(copied.device, memory_fraction)
    for group in copied.optimizer.param_groups:
        group["lr"] = 0.0  # many steps on one batch: the weights must not run away
    found: list[Trial] = []
    size, ended = 1, ""
    with recomputing(copied.model, copied.recipe.checkpoint_activations):
        while not ended:
            done = _measure(copied, dataset, size, memory, seconds)
            if done is None:
                ended = f"{size} pictures do not fit in memory"
                break
            if memory.exceeded(done.memory):
                ended = f"{size} pictures use more than {memory_fraction:.0%} of the memory"
                break
            found.append(done)
            tell(done)
            size *= 2
            if size > largest:
                ended = f"{largest} was the largest to try"
            elif size > len(dataset):  # type: ignore[arg-type]
                ended = f"there are {len(dataset)} pictures"  # type: ignore[arg-type]
            elif done.batch_size / done.pictures_per_second > seconds:
                ended = f"a step of {done.batch_size} pictures takes over {seconds:g} s"
            elif memory.foreseen(done.memory):
                ended = f"{size} pictures would need more than {memory_fraction:.0%} of the memory"
    if not found:
        raise EyelineError(
            f"{ended}; make the pictures smaller, or set checkpoint_activations=true"
        )
    best = max(trial.pictures_per_second for trial in found)
    chosen = next(t.batch_size for t in found if t.pictures_per_second >= NEAR * best)
    return BatchSizes(found, ended, chosen)


def _measure(
    copied: TrialModel, dataset: Dataset[Any], size: int, memory: _Memory, limit: float
) -> Trial | None:
    """Some steps on one batch; None if it did not fit."""
    model, optimizer, recipe, device = copied
    memory.start()
    seconds = []
    try:
        scaler = loss_scaler(device, recipe.precision)
        largest = sorted(recipe.data.sizes)[-1:]
        loader = build_loader(dataset, size, prepare_of(model), True, 0, recipe.seed, sizes=largest)
        batch = next(iter(loader))
        for k in range(4):  # the first one allocates and tunes
            seed_generators(recipe.seed, k)
            start = time.perf_counter()
            where = f"batch size {size}"
            train_step(model, [batch], optimizer, scaler, recipe, device, where)
            if device.type != "cpu":
                torch.accelerator.synchronize(device)
            seconds.append(time.perf_counter() - start)
            if sum(seconds) > limit:
                break
    except (MemoryError, RuntimeError) as error:
        if not is_lack_of_memory(error):
            raise
    else:
        return Trial(size, size / median(seconds[1:] or seconds), memory.used())
    # Here the error is gone, and with it what its frames held.
    optimizer.zero_grad()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return None


class _Memory:
    """How much is in use, and how much may be."""

    def __init__(self, device: torch.device, fraction: float) -> None:
        self.device = device
        self.of_gpu = device.type == "cuda"
        if self.of_gpu:
            self.base = torch.cuda.memory_allocated(device)
            self.limit = fraction * torch.cuda.mem_get_info(device)[1]
        else:
            self.base = _resident() or memory_mb(device) * 1e6
            self.limit = self.base + fraction * free_memory()

    def start(self) -> None:
        """From here on `used` counts, where the system can tell."""
        if self.of_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
        elif CLEAR.exists():
            with suppress(OSError):  # forbidden: then it is the peak of the process's life
                CLEAR.write_text("5")

    def used(self) -> float:
        """Bytes at most in use since `start`."""
        status = {} if self.of_gpu else _table("/proc/self/status")
        return status["VmHWM:"] * 1024 if "VmHWM:" in status else memory_mb(self.device) * 1e6

    def exceeded(self, used: float) -> bool:
        return used > self.limit

    def foreseen(self, used: float) -> bool:
        """Would twice the batch need too much? A GPU says so itself, a computer would die of it."""
        return not self.of_gpu and self.base + 2 * (used - self.base) > self.limit


def free_memory() -> float:
    """Bytes that this process may still take: of the machine, and of its container."""
    free = [math.inf]
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        free.append(float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")))
    machine = _table("/proc/meminfo")
    if "MemAvailable:" in machine:
        free.append(machine["MemAvailable:"] * 1024)
    for folder, limit, used in (
        ("/sys/fs/cgroup", "memory.max", "memory.current"),
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        numbers = [_read(f"{folder}/{name}").strip() for name in (limit, used)]
        if all(number.isdigit() for number in numbers):  # "max" is no limit
            cached = _table(f"{folder}/memory.stat").get("inactive_file", 0.0)  # given up at need
            free.append(float(numbers[0]) - float(numbers[1]) + cached)
    return max(min(free), 0.0)


def _table(path: str) -> dict[str, float]:
    """Lines of a name and a number."""
    rows = (line.split() for line in _read(path).splitlines())
    return {row[0]: float(row[1]) for row in rows if len(row) >= 2 and row[1].isdigit()}


def _read(path: str) -> str:
    """A file of the system's; empty where there is none."""
    file = Path(path)
    return file.read_text() if file.is_file() else ""


def _resident() -> float:
    """Bytes of memory that the process holds now; 0 where the system does not tell."""
    numbers = _read("/proc/self/statm").split()
    return float(numbers[1]) * os.sysconf("SC_PAGE_SIZE") if numbers else 0.0
