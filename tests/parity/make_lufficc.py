"""Writes lufficc/SSD's side of test_lufficc_parity.py: shapes and figures of one .npz a model.

Needs a checkout of lufficc/SSD (commit 68dc0a2 made the files that are here), yacs, OpenCV and
torchvision, and the folder of real pictures:

    python tests/parity/make_lufficc.py path/to/SSD path/to/shared/data

Its pictures are resized here in float32, as ours are; it has OpenCV do so, to whole numbers. Of the
annotation only objects whose boxes match without doubt are left: its IoU has 1e-5 of the picture's
area too much below the line.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from fill import fill
from make_ssd import calibrate
from make_torchvision import HERE, PICTURES, load, named, read_picture, read_target, same, shapes_of
from torch import Tensor, nn
from torchvision.ops import box_iou

# The case, its configuration, its classes, and what is added to the bias of the background.
CASES = (
    ("lufficc_ssd300", "vgg_ssd300_voc0712.yaml", 21, 14.0),
    ("lufficc_ssd512", "vgg_ssd512_coco_trainval35k.yaml", 81, 17.0),
)


def layers_of(model: nn.Module) -> dict[str, float]:
    """In the order they run, and the spread of what comes out of each."""
    maps = len(model.box_head.predictor.cls_headers)
    heads = {
        f"box_head.predictor.{kind}_headers.{i}": spread
        for i in range(maps)
        for kind, spread in (("cls", 2.5), ("reg", 1.0))
    }
    extras = {f"backbone.extras.{i}": 1.0 for i in range(len(model.backbone.extras))}
    return {"backbone.vgg.31": 1.0, "backbone.vgg.33": 1.0} | extras | heads


def prepared(picture: Tensor, side: int) -> Tensor:
    """Stretched to a square, less the mean: (1, 3, side, side)."""
    square = F.interpolate(picture[None].float(), (side, side), mode="bilinear")
    return square - torch.tensor([123.0, 117, 104])[:, None, None]


@torch.no_grad()
def detections(model: nn.Module, image: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
    """Of one picture, boxes in pixels of its own (height, width)."""
    found = model(image)[0].resize((size[1], size[0]))
    return {key: found[key] for key in ("boxes", "scores", "labels")}


def clear(boxes: Tensor, priors: Tensor) -> list[int]:
    """Objects of which no prior's overlap is so near the threshold that the 1e-5 would decide, and
    whose best one is no tie."""
    iou = box_iou(boxes.double(), priors.double())
    best = iou.topk(2).values
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    sure = (best[:, 0] - best[:, 1] > 1e-4) & ((iou - 0.5).abs().amin(1) > 2e-5 / area)
    return sure.nonzero()[:, 0].tolist()


def main(source: Path, data: Path) -> None:
    sys.path.insert(0, str(source))
    torchvision.__version__ = "1.0"  # it compares this as text, and 0.28 would be before 0.3
    from ssd.config import cfg as default
    from ssd.data.transforms import build_target_transform
    from ssd.modeling.detector import build_detection_model

    for case, file, slots, background in CASES:
        print(case)
        cfg: Any = default.clone()
        cfg.merge_from_file(str(source / "configs" / file))
        cfg.MODEL.BACKBONE.PRETRAINED = False
        side = cfg.INPUT.IMAGE_SIZE
        model = build_detection_model(cfg).eval()
        shapes = shapes_of(model)
        pictures = [read_picture(data, name) for name in PICTURES]
        images = torch.cat([prepared(picture, side) for picture in pictures])
        load(model, fill(shapes))
        calibration = calibrate(model, images, layers_of(model), slots, (), background)
        load(model, fill(shapes, calibration))
        out = {f"calibration.{key}": value for key, value in calibration.items()}
        model.eval()
        for i, (picture, image) in enumerate(zip(pictures, images, strict=True)):
            size = picture.shape[1:]
            found = detections(model, image[None], size)
            exact = detections(model.double(), image[None].double(), size)
            model.float()
            scores, kinds = found["scores"], found["labels"].unique()
            print(f"  {len(scores)} of {len(kinds)} classes, {scores[-1]:.3f} .. {scores[0]:.3f}")
            assert same(found, exact) and len(scores) >= 20, f"picture {i}"
            with torch.no_grad():
                logits, _ = model.box_head.predictor(model.backbone(image[None]))
            most = int((logits.softmax(-1)[..., 1:] > 0.01).sum(1).max())
            assert most <= 400, f"{most} candidates of one class"
            out |= named(side, i, found)
        match = build_target_transform(cfg)
        maps = zip(cfg.MODEL.PRIORS.FEATURE_MAPS, cfg.MODEL.PRIORS.BOXES_PER_LOCATION, strict=True)
        counts = [cells**2 * boxes for cells, boxes in maps]
        third = match.corner_form_priors.split(counts)[2]  # at 300, some lie beyond the edge
        out[f"{side}.priors"] = third.numpy()
        kept, wanted = [], []
        for i, (picture, name) in enumerate(zip(pictures, PICTURES, strict=True)):
            target = read_target(data, name)
            size = torch.tensor([picture.shape[2], picture.shape[1]]).repeat(2)
            boxes = target["boxes"] / size
            rows = clear(boxes, match.corner_form_priors)
            print(f"  picture {i}: {len(rows)} of {len(boxes)} objects")
            out[f"{side}.{i}.objects"] = np.array(rows)
            kept.append(rows)
            if rows:
                wanted.append(match(boxes[rows], target["labels"][rows] % (slots - 1) + 1))
            else:  # of which theirs can make nothing
                priors = len(match.corner_form_priors)
                wanted.append((torch.zeros(priors, 4), torch.zeros(priors, dtype=torch.int64)))
        truth = {
            "boxes": torch.stack([boxes for boxes, _ in wanted]),
            "labels": torch.stack([labels for _, labels in wanted]),
        }
        with torch.no_grad():
            losses = model.train()(images, targets=truth)
        for key, value in losses.items():
            print(f"  {key} {value:.5f}")
            out[f"{side}.losses.{key}"] = value.numpy()
        out["shapes"] = np.array(json.dumps(shapes))
        np.savez_compressed(HERE / f"{case}.npz", **out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
