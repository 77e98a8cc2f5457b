"""Several processes as torchrun starts them; alone, everything here is free."""

from __future__ import annotations

import os
from datetime import timedelta

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from eyeline.device import find_device


def start_processes(wanted: str | None) -> tuple[int, torch.device]:
    """(rank, device) of this process, which joins torchrun's others.

    `wanted` names a device; None is the GPU if there is one.
    """
    device = find_device(wanted)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not distributed.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        # Long enough for the first process to evaluate while the others wait.
        distributed.init_process_group(backend, timeout=timedelta(hours=4))
    if not distributed.is_initialized():
        return 0, device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    return distributed.get_rank(), device


def count_processes() -> int:
    return distributed.get_world_size() if distributed.is_initialized() else 1


def share_gradients(model: nn.Module, device: torch.device) -> nn.Module:
    """The model, averaging its gradients over all processes if there are several."""
    if not distributed.is_initialized():
        return model
    return DistributedDataParallel(model, [device] if device.type == "cuda" else None)


def any_process(flag: bool, device: torch.device) -> bool:
    """Is the flag set in any of the processes? They all get the same answer."""
    if not distributed.is_initialized():
        return flag
    flags = torch.tensor(float(flag), device=device)
    distributed.all_reduce(flags, distributed.ReduceOp.MAX)
    return bool(flags)
