"""Writes the other side of test_hrnet_parity.py: the authors' HRNets.

Needs the folder of real pictures, and checkouts of HRNet-Semantic-Segmentation (branch HRNet-OCR,
commit 0bbb288, whose lib/models/seg_hrnet.py is read) and of HRNet-Image-Classification; yacs, and
torchvision for what it imports:

    python tests/parity/make_hrnet.py path/to/shared/data path/to/segmentation path/to/classifiers
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from fill import fill
from make_fcn import SIZE, classes_of, kept
from make_torchvision import HERE, IMAGENET, PICTURES, load, read_picture, shapes_of
from yacs.config import CfgNode

# width, exchanges, blocks, bottlenecks, their width, corners on corners, classes
CASES: dict[str, tuple[Any, ...]] = {
    "w18": (18, (1, 4, 3), 4, 4, 64, False, 19),
    "cornered": (8, (1, 2, 1), 2, 1, 32, True, 150),
}


def settings(
    width: int, modules: tuple[int, ...], blocks: int, first: int, wide: int, corners: bool,
    classes: int,
) -> CfgNode:  # fmt: skip
    extra: dict[str, Any] = {"FINAL_CONV_KERNEL": 1}
    extra["STAGE1"] = dict(
        NUM_MODULES=1, NUM_BRANCHES=1, BLOCK="BOTTLENECK", NUM_BLOCKS=[first],
        NUM_CHANNELS=[wide], FUSE_METHOD="SUM",
    )  # fmt: skip
    for stage, count in enumerate(modules, 2):
        extra[f"STAGE{stage}"] = dict(
            NUM_MODULES=count, NUM_BRANCHES=stage, BLOCK="BASIC", NUM_BLOCKS=[blocks] * stage,
            NUM_CHANNELS=[width << i for i in range(stage)], FUSE_METHOD="SUM",
        )  # fmt: skip
    return CfgNode(
        {"MODEL": {"ALIGN_CORNERS": corners, "EXTRA": extra}, "DATASET": {"NUM_CLASSES": classes}}
    )


@torch.no_grad()
def main(data: Path, segmentation: Path, classification: Path) -> None:
    np.int = int  # type: ignore[attr-defined]  # which it was when the code was written
    sys.path.insert(0, str(segmentation / "lib"))
    nets = importlib.import_module("models.seg_hrnet")
    picture = read_picture(data, PICTURES[0])[:, : SIZE[0], : SIZE[1]]
    mean, std = torch.tensor(IMAGENET)[..., None, None]
    images, out = ((picture / 255 - mean) / std)[None], {}
    for case, numbers in CASES.items():
        model = nets.HighResolutionNet(settings(*numbers)).eval()
        shapes, corners = shapes_of(model), numbers[5]
        load(model, fill(shapes))
        scores = model(images)
        logits = F.interpolate(scores, SIZE, mode="bilinear", align_corners=corners)
        loss = F.cross_entropy(logits, classes_of(SIZE, numbers[-1])[None], ignore_index=255)
        print(case, float(loss), logits.shape)
        every = kept(logits)
        out |= {
            f"{case}.shapes": np.array(json.dumps(shapes)),
            f"{case}.logits": every[:, :, ::4, ::4] if case == "cornered" else every,
            f"{case}.loss": loss.numpy(),
        }
    sys.path[0] = str(classification / "lib")
    for name in [name for name in sys.modules if name.split(".")[0] == "models"]:
        del sys.modules[name]
    nets = importlib.import_module("models.cls_hrnet")
    model = nets.HighResolutionNet(settings(*CASES["cornered"]))
    shapes = shapes_of(model)
    out["classifier.shapes"] = np.array(json.dumps(shapes))
    np.savez_compressed(HERE / "hrnet.npz", **out)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
