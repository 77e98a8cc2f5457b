"""Each segmenter learns eight frames of CamVid by heart: losses, gradients, maps fit together.

What classes can be told apart with is one logit of each class at every place of the network's last
map. Free logits at an eighth of the frames' size, fitted themselves, make no more than mIoU 0.75:
a pole is a pixel or two wide. So the frames are enlarged for networks whose last map is coarse.
"""

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
SIZE = (72, 96)
SLIM = dict(width=16, norm="batch", dropout=0.0, final_learned=True)
RESNET = dict(backbone="resnet18")
# Options, how many times as large the frames of SIZE are, the highest learning rate
NETWORKS: dict[str, tuple[dict[str, Any], int, float]] = {
    "deeplabv3": (RESNET | dict(output_stride=8, multi_grid=(1,), width=64, drop=0.0), 4, 2e-3),
    "deeplabv3plus": (RESNET | dict(width=64, drop=0.0), 2, 2e-3),
    "enet": (dict(dropout=(0.0, 0.0)), 2, 5e-3),
    "fcn": (RESNET | dict(dropout=0.0, auxiliary=0.0), 4, 2e-3),
    "fcn8s": (SLIM, 4, 2e-3),
    "fcn16s": (SLIM | dict(width=8), 8, 2e-3),
    "fcn32s": (SLIM | dict(width=4), 16, 2e-3),
    "fpn": (RESNET | dict(fpn_channels=64, branch_width=64), 2, 2e-3),
    "hrnet": (dict(width=18), 2, 2e-3),
    "linknet": ({}, 2, 5e-3),
    "pan": (RESNET, 3, 2e-3),
    "pspnet": (RESNET | dict(width=64, drop=0.0, auxiliary=0.0), 4, 2e-3),
    "segnet": (dict(width=16), 2, 2e-3),
    "unet": (dict(width=16, padding="same", norm="batch", dropout=0.0), 1, 3e-3),
    "unetplusplus": (dict(width=16, norm="batch"), 1, 3e-3),
}
STEPS, EVERY, WANTED = 600, 20, 0.9  # steps at most, and between two looks; the mIoU


def frames(folder: Path, times: int) -> tuple[Tensor, Tensor]:
    """Eight pictures (8, 3, H, W), a tenth of the film apart, and their classes (8, H, W)."""
    pictures = sorted((folder / "train").iterdir())[::46][:FRAMES]
    assert len(pictures) == FRAMES
    wide, large = SIZE[::-1], (SIZE[1] * times, SIZE[0] * times)
    images, maps = [], []
    for path in pictures:
        with Image.open(path) as file:
            small = file.convert("RGB").resize(wide, Image.Resampling.BILINEAR)
        images.append(np.array(small.resize(large, Image.Resampling.BILINEAR)))
        with Image.open(folder / "trainannot" / f"{path.stem}.png") as file:
            ids = file.resize(wide, Image.Resampling.NEAREST)
        maps.append(np.array(ids.resize(large, Image.Resampling.NEAREST)))
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
    options, times, rate = NETWORKS[name]
    images, classes = frames(folder, times)
    torch.manual_seed(0)
    model = create_model(name, num_classes=CLASSES, losses=("cross_entropy", "dice"), **options)
    model.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=1e-4, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=STEPS, pct_start=0.1
    )
    score = 0.0
    for step in range(1, STEPS + 1):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            losses = model(images, classes)
        sum(losses.values()).backward()
        optimizer.step()
        schedule.step()
        if step % EVERY == 0:
            score = mean_iou(model, images, classes)
            if show:
                print(name, step, {k: round(v.item(), 3) for k, v in losses.items()}, score)
            if score >= WANTED:
                break
    return score


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_eight_frames_by_heart(name: str, shared_data: Path) -> None:
    assert learn(name, shared_data / "camvid") >= WANTED


if __name__ == "__main__":
    import sys

    for each in sys.argv[2:]:
        learn(each, Path(sys.argv[1]), show=True)
