"""Devices and precisions by name."""

from __future__ import annotations

import torch

from eyeline.errors import EyelineError

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def find_device(wanted: torch.device | str | None = None) -> torch.device:
    """The device of that name; None is the GPU if there is one.

    Raises:
        EyelineError: no device has that name, or none is there.
    """
    try:
        device = torch.device(wanted or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise EyelineError(f"device {str(wanted)!r} cannot be used: {reason}") from None
    return device


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """A context that computes in one of PRECISIONS; float32 is as everywhere else."""
    half = precision != "float32"
    return torch.autocast(device.type, PRECISIONS[precision] if half else None, enabled=half)
