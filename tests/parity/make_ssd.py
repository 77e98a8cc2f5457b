"""Writes torchvision's side of test_ssd_parity.py: shapes and figures of one .npz.

Needs torchvision (0.28.0 made the file that is here) and the folder of real pictures:

    python tests/parity/make_ssd.py path/to/shared/data
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from fill import UNUSED, fill
from make_torchvision import (
    HERE,
    PICTURES,
    detections,
    load,
    losses,
    named,
    read_picture,
    read_target,
    shapes_of,
)
from torch import Tensor, nn
from torchvision.models.detection import ssd300_vgg16
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

CASE, SLOTS, MAPS = "ssd300", 91, 6
# Layers in the order they run, and the spread of what comes out of each.
LAYERS = (
    {"backbone.extra.0.7.1": 1.0, "backbone.extra.0.7.3": 1.0}
    | {f"backbone.extra.{i}.{j}": 1.0 for i in range(1, MAPS - 1) for j in (0, 2)}
    | {f"head.classification_head.module_list.{i}": 2.5 for i in range(MAPS)}
    | {f"head.regression_head.module_list.{i}": 1.0 for i in range(MAPS)}
)
BACKGROUND = 17.0  # is added to the calibrated bias of that slot


@torch.no_grad()
def calibrate(
    model: nn.Module,
    images: Tensor | list[Tensor],
    layers: dict[str, float],
    slots: int,
    unused: tuple[int, ...] = (),
    background: float = BACKGROUND,
) -> dict[str, np.ndarray]:
    """Layer by layer in one pass: its outputs' channels get mean 0 and, together, the spread. Slots
    that the data set does not use score -20."""
    found: dict[str, np.ndarray] = {}
    modules = dict(model.named_modules())

    def after(name: str, layer: nn.Conv2d, raw: Tensor) -> Tensor:
        out = raw.transpose(0, 1).flatten(1) - layer.bias[:, None]  # (channels, places)
        used = torch.ones(len(out), dtype=torch.bool)
        factor, bias = layers[name] / out.std(), -out.mean(1)
        if out.shape[1] > 2:  # else there is no spread but from channel to channel
            factor = layers[name] / out.std(1).mean()
        else:
            bias = torch.zeros(len(out))
        bias = bias * factor
        if "classification" in name or "cls_headers" in name:
            used.view(-1, slots)[:, list(unused)] = False
            bias.view(-1, slots)[:, 0] += background
        bias, scale = torch.where(used, bias, -20.0), torch.where(used, factor, 0.0)
        found[f"{name}.weight"] = scale[:, None, None, None].numpy()
        found[f"{name}.bias"] = bias.numpy()
        raw = raw - layer.bias[:, None, None]
        return raw * scale[:, None, None] + bias[:, None, None]

    hooks = [
        modules[name].register_forward_hook(
            lambda layer, _, out, name=name: after(name, layer, out)
        )
        for name in layers
    ]
    model(images)
    for hook in hooks:
        hook.remove()
    return found


def clear(model: nn.Module, image: Tensor, boxes: Tensor) -> list[int]:
    """The objects whose best default box is no tie, which rounding would decide."""
    maps = [torch.zeros(1, 1, n, n, dtype=torch.float64) for n in (38, 19, 10, 5, 3, 1)]
    square = ImageList(torch.zeros(1, 3, 300, 300), [(300, 300)])
    scale = torch.tensor([300 / image.shape[2], 300 / image.shape[1]]).repeat(2)
    best = box_iou((boxes * scale).double(), model.anchor_generator(square, maps)[0]).topk(2).values
    return (best[:, 0] - best[:, 1] > 1e-3).nonzero()[:, 0].tolist()


def main(data: Path) -> None:
    images = [read_picture(data, name) / 255 for name in PICTURES]
    targets = [read_target(data, name) for name in PICTURES]
    model = ssd300_vgg16(weights=None, weights_backbone=None).eval()
    shapes = shapes_of(model)
    load(model, fill(shapes))
    calibration = calibrate(model, images, LAYERS, SLOTS, UNUSED)
    load(model, fill(shapes, calibration))
    out = {f"calibration.{key}": value for key, value in calibration.items()}
    for i, found in enumerate(detections(model, images)):
        assert found and len(found["boxes"]) >= 20, f"picture {i}"
        out |= named(300, i, found)
    for i, (image, target) in enumerate(zip(images, targets, strict=True)):
        kept = clear(model, image, target["boxes"])
        print(f"  picture {i}: {len(kept)} of {len(target['boxes'])} objects")
        out[f"300.{i}.objects"] = np.array(kept)
        targets[i] = {key: value[kept] for key, value in target.items()}
    out |= {f"300.{key}": value for key, value in losses(model, images, targets).items()}
    out["shapes"] = np.array(json.dumps(shapes))
    np.savez_compressed(HERE / f"{CASE}.npz", **out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
