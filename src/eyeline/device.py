"""Devices by name."""

from __future__ import annotations

import torch

from eyeline.errors import EyelineError


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
