"""Transforms by the names that recipes have for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from difflib import get_close_matches
from typing import Any

from eyeline.data.transforms.base import Transform
from eyeline.data.transforms.colour import Photometric
from eyeline.data.transforms.compose import Compose
from eyeline.data.transforms.crop import RandomCrop
from eyeline.data.transforms.geometry import (
    Expand,
    HorizontalFlip,
    IoUCrop,
    MultiScale,
    Resize,
    VerticalFlip,
)
from eyeline.data.transforms.several import CopyPaste, MixUp, Mosaic
from eyeline.data.transforms.warp import Perspective, Rotate
from eyeline.errors import EyelineError

NAMES: dict[str, type] = {
    "hflip": HorizontalFlip,
    "vflip": VerticalFlip,
    "resize": Resize,
    "multi_scale": MultiScale,
    "photometric": Photometric,
    "iou_crop": IoUCrop,
    "random_crop": RandomCrop,
    "expand": Expand,
    "rotate": Rotate,
    "perspective": Perspective,
    "mosaic": Mosaic,
    "mixup": MixUp,
    "copy_paste": CopyPaste,
}


def from_names(names: Sequence[str | Mapping[str, Any]]) -> Compose:
    """Transforms as a recipe lists them: ["hflip", {"resize": {"min_size": 240, "max_size": 320}}].

    Raises:
        EyelineError: an unknown name or option (the nearest is suggested), a value out of range.
    """
    return Compose([_from_name(entry) for entry in names])


def _from_name(entry: str | Mapping[str, Any]) -> Transform:
    if isinstance(entry, str):
        entry = {entry: {}}
    if not (isinstance(entry, Mapping) and len(entry) == 1):
        raise EyelineError(f"a transform is a name or {{name: {{options}}}}, not {entry!r}")
    [(name, options)] = entry.items()
    if name not in NAMES:
        raise EyelineError(f"no transform is called {name!r}; {_nearest(str(name), NAMES)}")
    options = {} if options is None else options
    if not isinstance(options, Mapping):
        raise EyelineError(f"transform {name!r}: options are {{option: value}}, not {options!r}")
    known = {field.name: field for field in fields(NAMES[name])}
    for option in options:
        if option not in known:
            raise EyelineError(
                f"transform {name!r} has no option {option!r}; {_nearest(str(option), known)}"
            )
    needed = [f.name for f in known.values() if f.default is MISSING and f.name not in options]
    if needed:
        raise EyelineError(f"transform {name!r} needs {' and '.join(needed)}")
    try:
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
        return NAMES[name](**values)  # type: ignore[no-any-return]
    except (TypeError, ValueError) as error:
        raise EyelineError(f"transform {name!r}: {error}") from None


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
