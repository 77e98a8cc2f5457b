"""What a backbone's weights bring along: the pictures that they were trained on.

Pictures are to be normalised as those were, whatever the detector's paper did: its weights know
nothing else. A norm of another kind is another network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import isclose
from typing import Any

from eyeline.checkpoints.source import Checkpoint
from eyeline.errors import EyelineError

PICTURES = ("image_mean", "image_std")
KINDS = {"frozen": "batch"}  # norms of the same tensors
FITTING = {"batch": "norm='batch' or norm='frozen'"}


def backbone_of(checkpoint: Checkpoint, wanted: str) -> Checkpoint:
    """Of a model with a backbone of that kind its backbone alone; any other one as it is."""
    if checkpoint.options.get("backbone") != wanted:
        return checkpoint
    place = "backbone."
    state = {k.removeprefix(place): v for k, v in checkpoint.state.items() if k.startswith(place)}
    renamed = checkpoint.renamed.items()
    names = {k.removeprefix(place): v for k, v in renamed if k.startswith(place)}
    return replace(checkpoint, name=wanted, state=state, renamed=names, dropped=[])


def brought(config: Any, checkpoint: Checkpoint, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a model, of which `config` has others, that come with its backbone's weights;
    `given` are those that the caller named.

    Raises EyelineError where given ones differ from the weights', where nothing tells what they
    need and nothing is given, where their norms are of another kind than the model's.
    """
    where, theirs = checkpoint.where, checkpoint.options
    norm, needed = getattr(config, "norm", None), theirs.get("norm")
    if None not in (norm, needed) and KINDS.get(norm, norm) != KINDS.get(needed, needed):
        raise EyelineError(
            f"{where} has norm={needed!r} in its backbone, the model {norm!r}; "
            f"give {FITTING.get(needed, f'norm={needed!r}')}"
        )
    found: dict[str, Any] = {}
    for key in (*PICTURES, "norm_epsilon"):
        ours = getattr(config, key, None)
        if ours is None or key not in theirs:
            continue
        if theirs[key] is None:
            if key not in given:
                raise EyelineError(
                    f"{where} does not tell its {key}: give image_mean= and image_std= of pictures "
                    "in [0, 1], which the weights were trained on"
                )
        elif _as_many(ours, theirs[key]) and not same(key, ours, theirs[key]):
            if key not in given:
                found[key] = theirs[key]
            elif key in PICTURES:
                raise EyelineError(
                    f"{where} was trained with {key}={rounded(theirs[key])}, given is "
                    f"{rounded(ours)}; without {key}= it comes along"
                )
    return found


def _as_many(ours: Any, theirs: Any) -> bool:
    """Of pictures of other channels nothing is said."""
    return not isinstance(ours, tuple) or len(ours) == len(theirs)


def same(key: str, ours: Any, theirs: Any) -> bool:
    """Are two values of an option equal but for rounding, and of pictures for digits left out?"""
    if isinstance(ours, tuple) and isinstance(theirs, tuple):
        if len(ours) != len(theirs):
            return False
        return all(same(key, a, b) for a, b in zip(ours, theirs, strict=True))
    if isinstance(ours, float) and isinstance(theirs, float):
        return isclose(ours, theirs, rel_tol=1e-3 if key in PICTURES else 1e-6)
    return bool(ours == theirs)


def rounded(values: tuple[float, ...]) -> str:
    return f"({', '.join(f'{value:.4g}' for value in values)})"
