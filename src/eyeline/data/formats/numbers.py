"""Numbers in text with no more digits than it takes to read them again as they were."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def decimal(value: float) -> float:
    """The shortest decimal number that is this float32."""
    return float(str(np.float32(value)))


def shortest(value: float, same: Callable[[float], bool], digits: int = 0) -> float:
    """`value` with the fewest digits behind the point, `digits` at least, that are the `same`."""
    return next((r for d in range(digits, 17) if same(r := round(value, d))), value)


def plain(value: float) -> str:
    """The shortest text of this float64 without an exponent; "3", not "3.0"."""
    return np.format_float_positional(value, trim="-")
