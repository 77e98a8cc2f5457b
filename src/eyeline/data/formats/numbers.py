"""Numbers in text with no more digits than it takes to read them again as they were."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def decimal(value: float) -> float:
    """The shortest decimal number that is this float32."""
    return float(str(np.float32(value)))


def shortest(value: float, same: Callable[[float], bool]) -> float:
    """`value` with the fewest digits behind the point that are still the `same`."""
    return next((r for digits in range(16) if same(r := round(value, digits))), value)
