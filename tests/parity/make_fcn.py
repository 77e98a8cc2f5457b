"""Writes the other side of test_fcn_parity.py: torchvision's FCN, and wkentaro/pytorch-fcn's.

Needs torchvision (0.28.0 made the files that are here), the folder of real pictures, and a checkout
of pytorch-fcn (commit 4b98850):

    python tests/parity/make_fcn.py path/to/shared/data path/to/pytorch-fcn

The networks of VGG16 have an eighth of the paper's channels.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from fill import fill
from make_torchvision import HERE, IMAGENET, PICTURES, load, read_picture, shapes_of
from torch import Tensor, nn

SIZE = (113, 149)  # odd, of the upper left corner
STEP = 4  # of the logits that are kept every fourth row and column
WIDTH = 8
MEAN_BGR = (104.00698793, 116.66876762, 122.67891434)
NARROW = {"fcn32s": "FCN32s", "fcn16s": "FCN16s", "fcn8s": "FCN8s", "fcn8s_at_once": "FCN8sAtOnce"}


def classes_of(size: tuple[int, int], count: int) -> Tensor:
    """A target: squares of all classes, a stripe to be ignored."""
    rows, columns = torch.arange(size[0])[:, None] // 16, torch.arange(size[1]) // 16
    target = (3 * rows + columns) % count
    target[:, 40:50] = 255
    return target


def narrow(model: nn.Module) -> nn.Module:
    """Its layers with WIDTH / 64 of their channels, except for classes and colours."""

    def less(channels: int) -> int:
        return channels if channels in (3, 21) else channels * WIDTH // 64

    for name, old in list(model.named_children()):
        if isinstance(old, nn.Conv2d):
            new = nn.Conv2d(
                less(old.in_channels), less(old.out_channels), old.kernel_size, old.stride,
                old.padding,
            )  # fmt: skip
            setattr(model, name, new)
    return model.eval()


def bilinear_at_the_end(model: nn.Module, arrays: dict[str, np.ndarray]) -> None:
    """The last upsampling is bilinear in trained files; one network has another."""
    for name in ("upscore", "upscore16", "upscore8"):
        if hasattr(model, name):
            arrays[f"{name}.weight"] = getattr(model, name).weight.detach().numpy()


def kept(logits: Tensor) -> np.ndarray:
    assert logits.shape[2:] == SIZE
    print("  logits' spread over a picture", float(logits.std((2, 3)).mean()))
    return logits[:, :, ::STEP, ::STEP].numpy()


@torch.no_grad()
def main(data: Path, peer: Path) -> None:
    picture = read_picture(data, PICTURES[0])[:, : SIZE[0], : SIZE[1]]
    target = classes_of(SIZE, 21)[None]
    mean, std = torch.tensor(IMAGENET)[..., None, None]
    out: dict[str, np.ndarray] = {}
    for case in ("fcn_resnet50", "fcn_resnet101"):
        build = getattr(torchvision.models.segmentation, case)
        model = build(weights=None, weights_backbone=None, num_classes=21, aux_loss=True).eval()
        shapes = shapes_of(model)
        load(model, fill(shapes))
        found = model(((picture / 255 - mean) / std)[None])
        out[f"{case}.shapes"] = np.array(json.dumps(shapes))
        out[f"{case}.logits"] = kept(found["out"])
        for name in ("out", "aux"):
            loss = F.cross_entropy(found[name], target, ignore_index=255)
            out[f"{case}.loss.{name}"] = loss.numpy()
            print(case, name, float(loss))
    np.savez_compressed(HERE / "fcn_torchvision.npz", **out)

    sys.modules["fcn"] = ModuleType("fcn")  # downloads files, which is not wanted
    sys.path.insert(0, str(peer))
    nets, out = importlib.import_module("torchfcn.models"), {}
    bgr = picture.flip(0) - torch.tensor(MEAN_BGR)[:, None, None]
    for case, name in NARROW.items():
        model = narrow(getattr(nets, name)())
        shapes = shapes_of(model)
        arrays = fill(shapes)
        if case != "fcn16s":
            bilinear_at_the_end(model, arrays)
        load(model, arrays)
        print(case)
        out[f"{case}.shapes"] = np.array(json.dumps(shapes))
        out[f"{case}.logits"] = kept(model(bgr[None]).float())[:, :, ::2, ::2]
    np.savez_compressed(HERE / "fcn_caffe.npz", **out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
