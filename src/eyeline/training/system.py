"""What a step costs the machine: memory, load, disk. Nothing here waits for a GPU."""

from __future__ import annotations

import math
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

import torch


def system_figures(device: torch.device, folder: Path) -> dict[str, float]:
    """Figures of now; what the system does not tell is missing.

    process_mb is this process's memory; cpu_load the processes that want a core, for each core,
    over the last minute; gpu_mb what tensors hold, gpu_reserved_mb what torch keeps for them,
    gpu_busy the share of the last moments in which the GPU worked; disk_free_gb is left for the
    run's folder.
    """
    found = {"process_mb": _process_mb()}
    with suppress(OSError, AttributeError):  # AttributeError: Windows
        found["cpu_load"] = os.getloadavg()[0] / (os.cpu_count() or 1)
    with suppress(OSError):
        found["disk_free_gb"] = shutil.disk_usage(folder).free / 1e9
    if device.type == "cuda":
        found["gpu_mb"] = torch.cuda.memory_allocated(device) / 1e6
        found["gpu_reserved_mb"] = torch.cuda.memory_reserved(device) / 1e6
        with suppress(ImportError, RuntimeError):  # needs the package nvidia-ml-py
            found["gpu_busy"] = torch.cuda.utilization(device) / 100
    return {name: value for name, value in found.items() if math.isfinite(value)}


def memory_mb(device: torch.device) -> float:
    """Peak memory so far, in MB: the GPU's, else the process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return math.nan
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _process_mb() -> float:
    """Memory of this process now; its workers have their own."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:  # only Linux tells it without another package
        return math.nan
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
