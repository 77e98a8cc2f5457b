"""What may be another when a run is resumed, and what is said of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from eyeline.data.loader import Loader, path_of
from eyeline.errors import EyelineError
from eyeline.processes import count_processes
from eyeline.training.recipe import Recipe

# Keys of the recipe that must be as they were; a section stands for all its keys.
UNCHANGED = (
    "model", "classes", "data.train", "data.transforms", "data.single_epochs", "data.tolerant",
    "data.bad_boxes", "data.one_based", "data.unknown", "data.draft", "data.aspect_grouping",
    "data.masks",  # where there are some, boxes that are turned come from them
    "data.ignore", "data.shift", "data.ids", "data.background", "data.on_top",
    "optimizer.name", "optimizer.no_decay_on_norms", "seed", "freeze", "ema", "eval.metric",
)  # fmt: skip
AROUND = ("processes", "device")  # the device in use: where the recipe has None, it is found
# What a change of the others means, where the key alone does not tell.
MEANS = {
    "epochs": "the schedule is laid out over all of them",
    "batch_size": "optimizer.lr stays as it is",
    "accumulate": "optimizer.lr stays as it is",
    "processes": "optimizer.lr stays as it is",
    "precision": "the course differs by rounding",
    "device": "the course differs by rounding, and other random numbers are drawn on it",
}


def surroundings(dataset: Dataset[Any], loader: Loader, device: torch.device) -> dict[str, Any]:
    """What decides a run's course besides its recipe, to be compared when it is resumed."""
    count = len(dataset)  # type: ignore[arg-type]
    names = hashlib.sha256()
    for index in range(count):
        path = path_of(dataset, index)
        names.update(f"{path.name if path else ''}\n".encode())  # not its folder: data may move
    return {
        "processes": count_processes(),
        "device": str(device),
        "pictures": count,
        "names": names.hexdigest(),
        "whole": loader.batch_sampler.whole,
    }


def check_same(
    folder: Path, before: Mapping[str, Any], recipe: Recipe, then: Mapping[str, Any], around: Any
) -> None:
    """Refuse what would make another run of it.

    Args:
        before: the recipe's values when the state was saved.
        then, around: the `surroundings` at that time, and now.

    Raises:
        EyelineError: names the first that may not be another.
    """
    advice = f"or start another from its weights with weights={folder / 'last.safetensors'}"
    a, b = flat(before), flat(values_of(recipe))
    for key in [*a, *(key for key in b if key not in a)]:
        fixed = any(key == one or key.startswith(f"{one}.") for one in UNCHANGED)
        if fixed and a.get(key) != b.get(key):
            raise EyelineError(
                f"{folder}: {key} was {a.get(key)} and is now {b.get(key)}; resume with the run's "
                f"own, {advice}"
            )
    if then["pictures"] != around["pictures"]:
        raise EyelineError(
            f"{folder}: had {then['pictures']} pictures to train on and now has "
            f"{around['pictures']}; resume with the pictures of the run, {advice}"
        )
    if then["names"] != around["names"]:
        raise EyelineError(
            f"{folder}: the pictures to train on have other names, or another order, than when it "
            f"was saved; resume with the pictures of the run, {advice}"
        )


def changes(
    before: Mapping[str, Any], recipe: Recipe, then: Mapping[str, Any], around: Mapping[str, Any]
) -> Iterator[str]:
    """A line for each thing that is another than when the state was saved."""
    a = flat(before) | {key: then[key] for key in AROUND}
    b = flat(values_of(recipe)) | {key: around[key] for key in AROUND}
    for key in [*a, *(key for key in b if key not in a)]:
        if a.get(key) != b.get(key):
            meaning = f": {MEANS[key]}" if key in MEANS else ""
            yield f"changed: {key} {a.get(key)} -> {b.get(key)}{meaning}"


def values_of(recipe: Recipe) -> dict[str, Any]:
    """The recipe as a file would hold it, without what only says where things lie: the folder,
    and a model's file, of which a run has its own copy."""
    values = recipe.model_dump(mode="json", exclude={"out"})
    if values["model"]:
        del values["model"]["name"]
    return values


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by their dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        inner = flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {}
        found |= inner or {prefix + key: value}
    return found
