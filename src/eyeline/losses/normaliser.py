"""What a loss that is summed over a batch is divided by."""

from __future__ import annotations

import torch
from torch import Tensor

from eyeline.processes import count_processes, sum_over_processes


def batch_total(count: Tensor, pictures: int, least: float = 1) -> Tensor:
    """How many things in a batch count, at least 1: what their losses' sum is divided by, ().

    Of several processes that learn together each has some pictures of the batch. Then things are
    counted in all of them, and each process divides by its pictures' share; so the mean of the
    loss over all pictures is what one process with the whole batch would have. (Divided by its
    own things, those of a process that has few would weigh more.)

    count     () of this process, without a gradient
    pictures  of this process
    least     instead of 1, where the things have weights

    Under `no_grad` a batch is this process's alone: who only measures need not wait for others.
    """
    if count_processes() == 1 or not torch.is_grad_enabled():
        return count.clamp(min=least)
    own = torch.stack([count.float(), torch.full_like(count, pictures, dtype=torch.float32)])
    all_things, all_pictures = sum_over_processes(own)
    total: Tensor = all_things.clamp(min=least) * pictures / all_pictures
    return total
