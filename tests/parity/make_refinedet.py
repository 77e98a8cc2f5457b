"""Writes luuuyi/RefineDet.PyTorch's side of test_refinedet_parity.py: shapes and figures of one
.npz.

Needs a checkout of that repository (0e4b24c made the file that is here), OpenCV, which it imports,
torchvision for what this shares with its neighbours, and the folder of real pictures:

    python tests/parity/make_refinedet.py path/to/RefineDet.PyTorch path/to/shared/data

Its layers, its detection and its losses run as they are. What is not its own: pictures are resized
by torch, since its OpenCV rounds them to whole numbers, and the layer that detects is called by
hand, since torch no longer calls such a one as the repository does.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from fill import fill
from make_torchvision import HERE, PICTURES, load, named, read_picture, read_target, same, shapes_of
from torch import Tensor, nn

CASE, SLOTS, MAPS = "refinedet", 21, range(4)
MEAN = (123.0, 117.0, 104.0)  # theirs, turned round as their pictures are
STEPS = ("arm", "odm")
# The spread of what comes out of each of these layers.
LAYERS = (
    {f"vgg.{i}": 1.0 for i in (31, 33)}
    | {f"extras.{i}": 1.0 for i in range(2)}
    | {f"tcb0.{3 * i + j}": 1.0 for i in MAPS for j in (0, 2)}
    | {f"tcb1.{i}": 1.0 for i in MAPS if i < 3}
    | {f"tcb2.{3 * i + 1}": 1.0 for i in MAPS}
    | {f"{step}_loc.{i}": 1.0 for step in STEPS for i in MAPS}
    | {f"arm_conf.{i}": 2.0 for i in MAPS}
    | {f"odm_conf.{i}": 2.5 for i in MAPS}
)
# Is added to the bias of the slots of background: the ARM discards a part of the anchors.
BACKGROUND = {"arm_conf": (2, 2.0), "odm_conf": (SLOTS, 15.5)}


class Theirs:
    """The repository's network for pictures of one size, with its detection and losses."""

    def __init__(self, size: int) -> None:
        from layers.functions.detection_refinedet import Detect_RefineDet
        from layers.modules import RefineDetMultiBoxLoss
        from models.refinedet import build_refinedet

        self.size, self.net = size, build_refinedet("train", size, SLOTS).eval()
        self.detect = Detect_RefineDet(SLOTS, size, 0, 1000, 0.01, 0.45, 0.01, 500)
        flags = (0.5, True, 0, True, 3, 0.5, False, False)  # as its training has them, on a CPU
        self.criteria = {
            "arm": RefineDetMultiBoxLoss(2, *flags),
            "odm": RefineDetMultiBoxLoss(SLOTS, *flags, use_ARM=True),
        }

    def prepared(self, image: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """A picture (3, H, W) in [0, 1], stretched: (1, 3, S, S)."""
        side = (self.size, self.size)
        pixels = F.interpolate(image[None].to(dtype), side, mode="bilinear", align_corners=False)
        return pixels * 255 - torch.tensor(MEAN, dtype=dtype)[:, None, None]

    def detections(self, image: Tensor, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """In the picture's pixels, best first; its labels are ours."""
        found = self.net.to(dtype)(self.prepared(image, dtype))
        arm_loc, arm_conf, odm_loc, odm_conf, priors = found
        filtered = float((arm_conf.softmax(-1)[..., 1] <= 0.01).float().mean())
        out = self.detect.forward(
            arm_loc, arm_conf.softmax(-1), odm_loc, odm_conf.softmax(-1), priors.to(dtype)
        )[0]
        self.net.float()
        rows = [(label, row) for label in range(1, SLOTS) for row in out[label] if row[0] > 0]
        rows.sort(key=lambda pair: -float(pair[1][0]))
        scores, boxes = torch.stack([row[0] for _, row in rows]), torch.stack([r for _, r in rows])
        sides = torch.tensor([image.shape[2], image.shape[1]]).repeat(2)
        print(f"  {len(rows)}, scores {scores[-1]:.3f} .. {scores[0]:.3f}; filtered {filtered:.2f}")
        assert 0.05 < filtered < 0.95
        labels = torch.tensor([label - 1 for label, _ in rows])
        return {"boxes": boxes[:, 1:] * sides, "scores": scores, "labels": labels}

    def losses(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Any]:
        found = self.net(torch.cat([self.prepared(image) for image in images]))
        rows = []
        for image, target in zip(images, targets, strict=True):
            sides = torch.tensor([image.shape[2], image.shape[1]]).repeat(2)
            rows.append(torch.cat([target["boxes"] / sides, target["labels"][:, None]], 1))
        out = {}
        for step, criterion in self.criteria.items():
            out[f"{step}_loc"], out[f"{step}_conf"] = criterion(found, rows)
        print("  " + ", ".join(f"{name} {value:.5f}" for name, value in out.items()))
        return {f"losses.{name}": value.numpy() for name, value in out.items()}

    def clear(self, image: Tensor, boxes: Tensor) -> list[int]:
        """The objects whose best anchor is no tie, which rounding would decide."""
        from layers.box_utils import jaccard, point_form

        sides = torch.tensor([image.shape[2], image.shape[1]]).repeat(2)
        priors = point_form(self.net.priors.double())
        best = jaccard((boxes / sides).double(), priors).topk(2).values
        return (best[:, 0] - best[:, 1] > 1e-3).nonzero()[:, 0].tolist()


@torch.no_grad()
def calibrate(net: nn.Module, pictures: Tensor) -> dict[str, np.ndarray]:
    """Layer by layer in one pass: its outputs' channels get mean 0 and, together, the spread."""
    found: dict[str, np.ndarray] = {}
    modules: dict[str, Any] = dict(net.named_modules())

    def after(name: str, layer: Any, raw: Tensor) -> Tensor:
        raw = raw - layer.bias[:, None, None]
        out = raw.transpose(0, 1).flatten(1)  # (channels, places)
        factor = LAYERS[name] / out.std(1).mean()
        bias = -out.mean(1) * factor
        if (head := name.split(".")[0]) in BACKGROUND:
            slots, more = BACKGROUND[head]
            bias.view(-1, slots)[:, 0] += more
        found[f"{name}.weight"], found[f"{name}.bias"] = factor.numpy(), bias.numpy()
        return raw * factor + bias[:, None, None]

    hooks = [
        modules[name].register_forward_hook(
            lambda layer, _, out, name=name: after(name, layer, out)
        )
        for name in LAYERS
    ]
    net(pictures)
    for hook in hooks:
        hook.remove()
    return found


@torch.no_grad()
def main(repository: Path, data: Path) -> None:
    sys.path.insert(0, str(repository))
    warnings.simplefilter("ignore")
    images = [read_picture(data, name) / 255 for name in PICTURES]
    targets = [read_target(data, name) for name in PICTURES]
    for target in targets:
        target["labels"] = target["labels"] % (SLOTS - 1)  # of VOC's classes, whatever they are
    theirs = Theirs(320)
    shapes = shapes_of(theirs.net)
    load(theirs.net, fill(shapes))
    calibration = calibrate(theirs.net, torch.cat([theirs.prepared(image) for image in images]))
    out: dict[str, Any] = {f"calibration.{key}": value for key, value in calibration.items()}
    for size, which in ((320, (0, 1)), (512, (1,))):
        print(size)
        theirs = Theirs(size)
        load(theirs.net, fill(shapes, calibration))
        kept = []
        for i in which:
            image = images[i]
            found = theirs.detections(image)
            assert 20 <= len(found["boxes"]) < 500
            assert same(found, theirs.detections(image, torch.float64)), "a rounding error decides"
            out |= named(size, i, found)
            own = theirs.clear(image, targets[i]["boxes"])
            print(f"  picture {i}: {len(own)} of {len(targets[i]['boxes'])} objects")
            out[f"{size}.{i}.objects"] = np.array(own)
            kept.append({key: value[own] for key, value in targets[i].items()})
        out |= {
            f"{size}.{k}": v for k, v in theirs.losses([images[i] for i in which], kept).items()
        }
    out["shapes"] = np.array(json.dumps(shapes))
    np.savez_compressed(HERE / f"{CASE}.npz", **out)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
