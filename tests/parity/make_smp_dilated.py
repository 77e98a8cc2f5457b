"""Writes segmentation_models.pytorch's and torchvision's side of the parity tests of PSPNet, PAN,
DeepLabv3 and DeepLabv3+: one .npz a network, with every eighth pixel's logits.

Needs segmentation_models.pytorch (0.6.0 made the files that are here), torchvision (0.28.0) and the
folder of real pictures:

    python tests/parity/make_smp_dilated.py path/to/shared/data [FILE ...]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from fill import fill
from make_torchvision import HERE, IMAGENET, PICTURES, load, read_picture, shapes_of
from torch import Tensor, nn
from torchvision.models.segmentation import deeplabv3_resnet50

CLASSES, STEP = 5, 8
SIZES = {"smp": (256, 320), "torchvision": (128, 160)}
# File -> case -> how it is built there.
CASES: dict[str, dict[str, dict[str, Any]]] = {
    "smp_pspnet": {
        "resnet18.3": dict(encoder_name="resnet18"),
        "mobilenet_v2.5": dict(encoder_name="mobilenet_v2", encoder_depth=5, upsampling=32),
    },
    "smp_pan": {
        "resnet18.16": dict(encoder_name="resnet18"),
        "resnet18.32": dict(encoder_name="resnet18", encoder_output_stride=32),
    },
    "smp_deeplabv3": {
        "resnet18.8": dict(encoder_name="resnet18"),
        "mobilenet_v2.16": dict(encoder_name="mobilenet_v2", encoder_output_stride=16),
    },
    "smp_deeplabv3plus": {
        "mobilenet_v2.16": dict(encoder_name="mobilenet_v2"),
        "resnet18.8": dict(encoder_name="resnet18", encoder_output_stride=8),
    },
    "torchvision_deeplabv3": {"resnet50.8": {}},
}
NETWORKS = {
    "smp_pspnet": smp.PSPNet,
    "smp_pan": smp.PAN,
    "smp_deeplabv3": smp.DeepLabV3,
    "smp_deeplabv3plus": smp.DeepLabV3Plus,
}


def build(file: str, how: dict[str, Any]) -> nn.Module:
    if file in NETWORKS:
        return NETWORKS[file](encoder_weights=None, classes=CLASSES, **how)
    return deeplabv3_resnet50(
        weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=True
    )


def target_of(picture: Tensor) -> Tensor:
    """Classes of a picture (3, H, W) by its brightness; the brightest are ignored."""
    classes = picture.float().mean(0).long() // 48
    return classes.where(classes < CLASSES, 255)


@torch.no_grad()
def main(data: Path, wanted: list[str]) -> None:
    mean, std = torch.tensor(IMAGENET)[..., None, None]
    for file in wanted or CASES:
        out: dict[str, Any] = {}
        height, width = SIZES[file.split("_")[0]]
        picture = read_picture(data, PICTURES[0])[:, :height, :width]
        images = ((picture / 255 - mean) / std)[None]
        for case, how in CASES[file].items():
            model = build(file, how).eval()
            shapes = shapes_of(model)
            load(model, fill(shapes))
            said = model(images)
            logits = said["out"] if isinstance(said, dict) else said
            print(file, case, "spread", logits.std(), "over the picture", logits.std((2, 3)).mean())
            assert logits.std((2, 3)).mean() > 0.01, "it says the same everywhere"
            out[f"{case}.shapes"] = json.dumps(shapes)
            out[f"{case}.logits"] = logits[:, :, ::STEP, ::STEP].numpy()
            if isinstance(said, dict):  # torchvision's training counts the auxiliary head half
                truth = target_of(picture)[None]
                for name in ("out", "aux"):
                    loss = F.cross_entropy(said[name], truth, ignore_index=255)
                    out[f"{case}.{name}"] = loss.numpy() * (1.0 if name == "out" else 0.5)
        np.savez_compressed(HERE / f"{file}.npz", **out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
