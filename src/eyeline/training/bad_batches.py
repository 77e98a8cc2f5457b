"""Batches that gave no finite loss, as files to look at."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from eyeline.files import write_whole
from eyeline.ops.segmentations import encode_rle
from eyeline.structures import Batch
from eyeline.training.checks import targets_of


def save_bad_batch(
    folder: Path,
    batches: list[Any],
    pictures: list[dict[str, Any]],
    what: str,
    preprocess: Any = None,
) -> None:
    """Write 0.png, 1.png ..., the pictures as the network got them, 0-map.png ... where they have
    maps of classes, and batch.json with their annotations in these pictures' pixels and what else
    is known of each.

    Args:
        pictures: what is known of each picture, in order.
        what: is wrong with them.
        preprocess: tells mean and std of normalised pictures.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    targets = [target for batch in batches for target in targets_of(batch)]
    entries = []
    for i, (known, image) in enumerate(zip(pictures, _images(batches), strict=True)):
        name = f"{i}.png"
        png = _viewable(image, preprocess)
        write_whole(folder / name, partial(png.save, format="PNG"))
        target = dict(targets[i]) if i < len(targets) else {}
        if "map" in target:  # a picture too
            known = known | {"map": f"{i}-map.png"}
            classes = Image.fromarray(target.pop("map").cpu().to(torch.uint8).numpy())
            write_whole(folder / known["map"], partial(classes.save, format="PNG"))
        entries.append({"file": name, **known, "pixels": _pixels(image), "target": _plain(target)})
    text = json.dumps({"what": what, "pictures": entries}, indent=1, allow_nan=False)
    write_whole(folder / "batch.json", lambda part: part.write_text(text, encoding="utf-8"))


def _images(batches: list[Any]) -> list[Tensor]:
    """(C, H, W) each, without the padding of a Batch."""
    found = []
    for batch in batches:
        if isinstance(batch, Batch):
            sizes = batch.sizes.tolist()
            found += [x[:, :h, :w] for x, (h, w) in zip(batch.images, sizes, strict=True)]
        else:
            found += list(batch[0])
    return [image.detach().cpu() for image in found]


def _viewable(image: Tensor, preprocess: Any) -> Image.Image:
    """The picture before it was normalised; where that is not known, stretched from its lowest
    value to its highest. What is not finite becomes black."""
    values = image.float()
    mean, std = (getattr(preprocess, name, None) for name in ("mean", "std"))
    if image.dtype == torch.uint8:
        values = values / 255
    elif mean is not None and len(mean) == len(values):
        values = values * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]
    elif not ((values >= 0) & (values <= 1)).all():
        finite = values[values.isfinite()]
        low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
        values = (values - low) / max(float(high - low), 1e-12)
    values = values.nan_to_num(0.0, 0.0, 0.0).clamp(0, 1)
    rgb = values[:3] if len(values) >= 3 else values[:1].expand(3, -1, -1)
    return Image.fromarray((rgb * 255).round().byte().permute(1, 2, 0).contiguous().numpy())


def _pixels(image: Tensor) -> dict[str, Any]:
    """Size and range of what the network got."""
    finite = image[image.isfinite()].float()
    lowest, highest = (finite.min().item(), finite.max().item()) if len(finite) else (None, None)
    return {
        "height": image.shape[-2],
        "width": image.shape[-1],
        "lowest": lowest,
        "highest": highest,
        "not_finite": image.numel() - len(finite),
    }


def _plain(target: dict[str, Tensor]) -> dict[str, Any]:
    """As JSON has it; masks as COCO's runs, and "nan" and "inf" as words."""
    return {
        key: encode_rle(value.cpu(), compressed=False) if key == "masks" else _words(value.tolist())
        for key, value in target.items()
    }


def _words(value: Any) -> Any:
    if isinstance(value, list):
        return [_words(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
