"""What several processes tell each other; alone, everything here is free.

torchrun starts them, `eyeline.together.together` joins them.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

T = TypeVar("T")


def place() -> tuple[int, int]:
    """(rank, number of processes) of this process."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def count_processes() -> int:
    return place()[1]


def sum_over_processes(values: Tensor) -> Tensor:
    """Of tensors of one shape and dtype, one of each process; no gradient goes through it."""
    if count_processes() == 1:
        return values
    values = values.detach().clone()
    distributed.all_reduce(values)
    return values


def any_process(flag: bool) -> bool:
    """Is the flag set in any of the processes? They all get the same answer."""
    return count_in_all(int(flag)) > 0


def count_in_all(number: int) -> int:
    """The sum of what all processes count."""
    return number if count_processes() == 1 else int(sum_over_processes(torch.tensor(number)))


def of_all(value: T) -> list[T]:
    """What each process gives, anything that can be pickled, in the order of their ranks."""
    gathered: list[Any] = [value] * count_processes()
    if len(gathered) > 1:
        distributed.all_gather_object(gathered, value)
    return gathered


def of_first(value: T) -> T:
    """What the first process gives."""
    values: list[Any] = [value]
    if count_processes() > 1:
        distributed.broadcast_object_list(values)
    return values[0]  # type: ignore[no-any-return]


def turns(count: int) -> range:
    """Which of so many pieces of work are this process's: each is exactly one's."""
    rank, processes = place()
    return range(rank, count, processes)


def in_order(parts: list[list[T]]) -> list[T]:
    """The results of all `turns`, as one process alone would have them: parts[rank][i] is the
    i-th piece of work that this process did."""
    whole: list[Any] = [None] * sum(map(len, parts))
    for rank, part in enumerate(parts):
        whole[rank :: len(parts)] = part
    return whole
