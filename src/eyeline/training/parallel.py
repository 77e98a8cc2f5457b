"""One model in several processes; alone, everything here is free."""

from __future__ import annotations

import os

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from eyeline.device import find_device
from eyeline.processes import count_processes


def own_device(wanted: str | None) -> torch.device:
    """The device of that name, None being the GPU if there is one; of several processes on a
    machine each takes a GPU of its own."""
    if count_processes() == 1:
        return find_device(wanted)
    kind = wanted or ("cuda" if torch.cuda.is_available() else "cpu")
    if not kind.startswith("cuda"):
        return find_device(kind)
    device = find_device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}")
    torch.cuda.set_device(device)
    return device


def sync_norms(model: nn.Module, device: torch.device, wanted: bool) -> str:
    """Let batch norms that learn take their statistics from the pictures of all processes, which
    torch can on GPUs alone. What is to be said of it, if anything.

    Each norm becomes an `nn.SyncBatchNorm` in its place, with the same parameters and names.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if count_processes() == 1 or not norms:
        return ""
    if wanted and device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return f"{len(norms)} batch norms are synchronised over {count_processes()} processes"
    why = "sync_norms is false" if device.type == "cuda" else "synchronising them takes GPUs"
    return f"{len(norms)} batch norms see the pictures of their own process alone: {why}"


def share_gradients(model: nn.Module, device: torch.device) -> nn.Module:
    """The model, averaging its gradients over all processes if there are several."""
    if count_processes() == 1:
        return model
    devices = [device] if device.type == "cuda" else None
    # Running statistics, which no step of training reads, are the first process's: `same_buffers`.
    return DistributedDataParallel(model, devices, forward_sync_buffers=False)


def same_buffers(model: nn.Module) -> None:
    """Give all processes the first one's, before they evaluate."""
    if count_processes() > 1:
        for buffer in model.buffers():
            distributed.broadcast(buffer, 0)
