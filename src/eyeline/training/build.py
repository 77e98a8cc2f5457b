"""What a recipe names: its data, opened, and its model, built."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import Dataset

from eyeline.data.checking import silent
from eyeline.data.checking.progress import track
from eyeline.data.checking.usable import open_checked
from eyeline.data.formats import LISTS
from eyeline.data.formats.legend import Values
from eyeline.data.maps import SegmentationDataset
from eyeline.data.transforms import from_names
from eyeline.errors import EyelineError
from eyeline.registry import create_model, find_entry
from eyeline.training.recipe import Data, Recipe
from eyeline.training.step import seed_generators


def build(recipe: Recipe) -> tuple[nn.Module, Dataset[Any], Dataset[Any] | None]:
    """(model, training data, validation data); what loaded weights filled is printed."""
    if recipe.model is None or recipe.data.path is None:
        raise EyelineError("a recipe needs model.name and data.path")
    entry = find_entry(recipe.model.name)
    if entry.task not in ("detection", "segmentation"):
        raise EyelineError(
            f"{entry.name} is for {entry.task}; only detectors and segmenters can be trained yet"
        )
    data, path = recipe.data, recipe.data.path
    writes = os.environ.get("RANK", "0") == "0"  # once, of torchrun's processes
    if data.val is not None and Path(path).is_file() and Path(path).suffix.lower() not in LISTS:
        raise EyelineError(
            f"{path} is one split: give the folder that holds train and val, or data.val=null"
        )
    transforms = from_names(data.transforms)
    maps = of_maps(data) if entry.task == "segmentation" else of_objects(data, entry.name)
    opened: list[Any] = open_checked(
        path, [data.train] if data.val is None else [data.train, data.val], data.tolerant,
        data.bad_boxes, data.format, recipe.seed, data.channels, classes=recipe.classes,
        one_based=data.one_based, unknown=data.unknown, track=track if writes else silent,
        say=print if writes else None, **maps,
    )  # fmt: skip
    dataset, val_dataset = opened[0], opened[1] if len(opened) > 1 else None
    dataset.use_transforms(transforms)
    dataset.draft, dataset.single_from = data.draft, recipe.epochs - data.single_epochs
    for one in opened if data.masks else []:
        one.use_masks()
    if transforms.uses_masks and not data.masks:
        dataset.use_masks()
    seed_generators(recipe.seed)  # for the first weights
    options = recipe.model.options
    if recipe.weights is None:
        options = _of_channels(data.channels) | options
    model = create_model(
        recipe.model.name, classes=dataset.classes, weights=recipe.weights, **options
    )
    takes = getattr(model, "channels", data.channels)
    if takes != data.channels:
        raise EyelineError(
            f"data.channels is {data.channels} and the model takes {takes}; set data.channels, or "
            "model.in_channels, with as many numbers in model.image_mean and model.image_std"
        )
    if getattr(model, "needs_masks", False) and not data.masks:
        for one in opened:
            one.use_masks()
    source = recipe.weights or recipe.model.options.get("pretrained")
    if source is not None and writes:
        print(f"{source}: {model.load_report}", flush=True)
    return model, dataset, val_dataset


def of_maps(data: Data) -> dict[str, Any]:
    """How data with a class for every pixel is opened; masks are read when they are needed."""
    if data.masks:
        raise EyelineError("data.masks is for objects; a segmenter's data has maps without it")
    return {
        "make": partial(SegmentationDataset, background=data.background, on_top=data.on_top),
        "values": values_of(data),
        "lazy": not data.tolerant,
    }


def values_of(data: Data) -> Values:
    """What a recipe says of the numbers in masks."""
    return Values(data.ignore, data.shift, data.ids)


def of_objects(data: Data, name: str) -> dict[str, Any]:
    """How data with objects is opened. Raises EyelineError where a key is set that a detector's
    data has no use for."""
    for key in ("ignore", "shift", "ids", "background", "on_top"):
        if getattr(data, key) != Data.model_fields[key].default:
            raise EyelineError(f"data.{key} is for segmenters, and {name} is a detector")
    return {}


def _of_channels(count: int) -> dict[str, Any]:
    """Options of a model for pictures of so many channels. Of other than three nobody knows mean
    and deviation: these bring values in [0, 1] to about -2 to 2, as ImageNet's do."""
    if count == 3:
        return {}
    return {"in_channels": count, "image_mean": [0.5] * count, "image_std": [0.25] * count}
