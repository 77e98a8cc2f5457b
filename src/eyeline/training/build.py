"""What a recipe names: its data, opened, and its model, built."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import Dataset

from eyeline.data.datasets import DetectionDataset, open_dataset
from eyeline.data.formats import LISTS
from eyeline.data.transforms import from_names
from eyeline.errors import EyelineError
from eyeline.registry import create_model, find_entry
from eyeline.training.recipe import Recipe
from eyeline.training.step import seed_generators


def build(recipe: Recipe) -> tuple[nn.Module, Dataset[Any], Dataset[Any] | None]:
    """(model, training data, validation data); what loaded weights filled is printed."""
    if recipe.model is None or recipe.data.path is None:
        raise EyelineError("a recipe needs model.name and data.path")
    entry = find_entry(recipe.model.name)
    if entry.task != "detection":
        raise EyelineError(f"{entry.name} is for {entry.task}; only detectors can be trained yet")
    data, path = recipe.data, recipe.data.path
    if data.val is not None and Path(path).is_file() and Path(path).suffix.lower() not in LISTS:
        raise EyelineError(
            f"{path} is one split: give the folder that holds train and val, or data.val=null"
        )
    common: dict[str, Any] = {
        "masks": data.masks, "bad_boxes": data.bad_boxes, "seed": recipe.seed,
        "one_based": data.one_based, "format": data.format, "unknown": data.unknown,
        "channels": data.channels,
    }  # fmt: skip
    transforms = from_names(data.transforms)
    dataset = open_dataset(path, data.train, recipe.classes, transforms, draft=data.draft, **common)
    val_dataset: DetectionDataset | None = None
    if data.val is not None:
        val_dataset = open_dataset(path, data.val, dataset.classes, **common)
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
        for one in (dataset, val_dataset):
            if one is not None:
                one.use_masks()
    source = recipe.weights or recipe.model.options.get("pretrained")
    if source is not None and os.environ.get("RANK", "0") == "0":  # once, of torchrun's processes
        print(f"{source}: {model.load_report}", flush=True)
    return model, dataset, val_dataset


def _of_channels(count: int) -> dict[str, Any]:
    """Options of a model for pictures of so many channels. Of other than three nobody knows mean
    and deviation: these bring values in [0, 1] to about -2 to 2, as ImageNet's do."""
    if count == 3:
        return {}
    return {"in_channels": count, "image_mean": [0.5] * count, "image_std": [0.25] * count}
