"""Each segmenter learns eight frames of CamVid by heart: losses, gradients, maps fit together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from eyeline.registry import create_model

FRAMES, CLASSES, VOID = 8, 11, 255
# Options, steps at most, the highest learning rate, height and width.
NETWORKS: dict[str, tuple[dict[str, Any], int, float, tuple[int, int]]] = {
    # Where logits are at an eighth, poles need larger pictures.
    "deeplabv3": (
        dict(backbone="resnet18", output_stride=8, multi_grid=(1,), width=64),
        300,
        3e-3,
        (288, 384),
    ),
    "deeplabv3plus": (dict(backbone="resnet18", width=64), 300, 3e-3, (192, 256)),
    "fpn": (dict(backbone="resnet18", fpn_channels=64, branch_width=64), 300, 2e-3, (192, 256)),
    "linknet": (dict(), 300, 2e-3, (96, 128)),
    "pan": (dict(backbone="resnet18"), 300, 3e-3, (192, 256)),
    "pspnet": (dict(backbone="resnet18", width=64), 300, 3e-3, (288, 384)),
    "unet": (dict(width=16, padding="same", norm="batch", dropout=0.0), 300, 3e-3, (96, 128)),
    "unetplusplus": (dict(width=8, norm="batch"), 300, 5e-3, (96, 128)),
}
EVERY = 20  # steps between two looks


def frames(folder: Path, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Eight pictures (8, 3, H, W), a tenth of the film apart, and their classes (8, H, W)."""
    pictures = sorted((folder / "train").iterdir())[::46][:FRAMES]
    assert len(pictures) == FRAMES
    wide = size[::-1]
    images, maps = [], []
    for path in pictures:
        with Image.open(path) as file:
            images.append(np.array(file.convert("RGB").resize(wide, Image.Resampling.BILINEAR)))
        with Image.open(folder / "trainannot" / f"{path.stem}.png") as file:
            maps.append(np.array(file.resize(wide, Image.Resampling.NEAREST)))
    classes = torch.from_numpy(np.stack(maps)).long()
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), classes.where(
        classes < CLASSES, VOID
    )


@torch.no_grad()
def mean_iou(model: nn.Module, images: Tensor, classes: Tensor) -> float:
    """Over the classes that are there or are said to be, in eval()."""
    found = model.eval()(images).argmax(1)
    model.train()
    counted = classes != VOID
    pairs = torch.bincount(classes[counted] * CLASSES + found[counted], minlength=CLASSES**2)
    table = pairs.reshape(CLASSES, CLASSES)
    union = table.sum(0) + table.sum(1) - table.diag()
    assert (union > 0).sum() >= 10
    return float((table.diag()[union > 0] / union[union > 0]).mean())


def learn(name: str, folder: Path, show: bool = False) -> float:
    options, steps, rate, size = NETWORKS[name]
    images, classes = frames(folder, size)
    torch.manual_seed(0)
    model = create_model(name, num_classes=CLASSES, **options).train()
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps, pct_start=0.1
    )
    score = 0.0
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        losses = model(images, classes)
        sum(losses.values()).backward()
        optimizer.step()
        schedule.step()
        if step % EVERY == 0:
            score = mean_iou(model, images, classes)
            if show:
                print(name, step, {k: round(v.item(), 3) for k, v in losses.items()}, score)
            if score > 0.92:
                break
    return score


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_eight_frames_by_heart(name: str, shared_data: Path) -> None:
    assert learn(name, shared_data / "camvid") >= 0.9


if __name__ == "__main__":
    import sys

    for each in sys.argv[2:]:
        learn(each, Path(sys.argv[1]), show=True)
