"""Writes torchvision's side of test_mask_rcnn_parity.py: one .npz a case.

Needs torchvision and pycocotools (0.28.0 and 2.0.11 made the files that are here) and the folder
of real pictures:

    python tests/parity/make_mask_rcnn.py path/to/shared/data [CASE ...]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
import torchvision
from fill import fill
from make_torchvision import (
    BACKGROUND,
    BACKGROUND_V2,
    FASTER_RCNN,
    FASTER_RCNN_V2,
    HERE,
    PICTURES,
    calibrate,
    detections,
    load,
    losses,
    named,
    read_picture,
    read_target,
    shapes_of,
)
from pycocotools.coco import COCO
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN, maskrcnn_resnet50_fpn_v2
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.backbone_utils import BackboneWithFPN, _resnet_fpn_extractor
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import expand_boxes, paste_masks_in_image
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.ops.misc import FrozenBatchNorm2d

CASES = ["resnet18", "resnet50", "v2_resnet18", "v2_resnet50"]
PREDICTOR = {
    "roi_heads.mask_predictor.conv5_mask": 1.0,
    "roi_heads.mask_predictor.mask_fcn_logits": 2.0,
}
LAYERS = FASTER_RCNN | {f"roi_heads.mask_head.{i}.0": 1.0 for i in range(4)} | PREDICTOR
LAYERS_V2 = FASTER_RCNN_V2 | {f"roi_heads.mask_head.{i}.1": 1.0 for i in range(4)} | PREDICTOR
SMALL, PASTED, STEP = 10, 6, 4  # masks kept as they are, and pasted: every STEP-th pixel


def build(case: str) -> nn.Module:
    sizes = dict(min_size=256, max_size=426)
    if case.startswith("v2_"):
        return second(case.removeprefix("v2_"), rpn_post_nms_top_n_test=200, **sizes).eval()
    body = getattr(torchvision.models, case)(weights=None, norm_layer=FrozenBatchNorm2d)
    model = MaskRCNN(_resnet_fpn_extractor(body, 5), 91, **sizes)
    overwrite_eps(model, 0.0)
    return model.eval()


def second(backbone: str, **sizes: int) -> nn.Module:
    """With a ResNet-50 torchvision's own builder, with a ResNet-18 the same at a quarter of the
    width."""
    if backbone == "resnet50":
        return maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, **sizes)
    body, width, batch = getattr(torchvision.models, backbone)(weights=None), 64, nn.BatchNorm2d
    layers = {f"layer{i + 1}": str(i) for i in range(4)}
    channels = [64, 128, 256, 512]
    return MaskRCNN(
        BackboneWithFPN(body, layers, channels, width, LastLevelMaxPool(), batch),
        rpn_head=RPNHead(width, 3, conv_depth=2),
        box_head=FastRCNNConvFCHead((width, 7, 7), [width] * 4, [1024], norm_layer=batch),
        box_predictor=FastRCNNPredictor(1024, 91),
        mask_head=MaskRCNNHeads(width, [width] * 4, 1, norm_layer=batch),
        mask_predictor=MaskRCNNPredictor(width, width, 91),
        **sizes,
    )


def quantised(probabilities: Tensor) -> np.ndarray:
    return (probabilities * 65535).round().numpy().astype(np.uint16)


@torch.no_grad()
def small_masks(model: nn.Module, images: list[Tensor]) -> list[Tensor]:
    """(N, 28, 28) of each picture, before they are pasted."""
    found: list[Tensor] = []
    hook = model.roi_heads.register_forward_hook(
        lambda _, __, out: found.extend(result["masks"][:, 0].clone() for result in out[0])
    )
    model(images)
    hook.remove()
    return found


def pasting() -> dict[str, np.ndarray]:
    """Pasting alone: boxes that stick out, thin ones, whole numbers."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(12, 1, 28, 28, generator=generator)
    low = torch.rand(12, 2, generator=generator) * 40 - 5
    boxes = torch.cat([low, low + 8 + torch.rand(12, 2, generator=generator) * 40], 1)
    boxes[0] = torch.tensor([-20.0, -30, 90, 80])
    boxes[1] = torch.tensor([10.0, 10, 10.2, 40])
    boxes[2] = torch.tensor([60.0, 10, 90, 40])
    boxes[3] = torch.tensor([5.0, 6, 33, 34])
    out = {"paste.masks": quantised(masks[:, 0]), "paste.boxes": boxes.numpy()}
    exact = torch.from_numpy(out["paste.masks"].astype(np.float32) / 65535)[:, None]
    out["paste.pasted"] = quantised(paste_masks_in_image(exact, boxes, (50, 70))[:, 0])
    return out


def main(data: Path, cases: list[str]) -> None:
    pictures = [read_picture(data, name) for name in PICTURES]
    images = [picture / 255 for picture in pictures]
    coco = COCO(data / "tiny_coco" / "annotations" / "instances_val2017.json")
    targets = []
    for name in PICTURES:
        objects = [a for a in coco.imgToAnns[int(name)] if not a["iscrowd"]]
        masks = torch.from_numpy(np.stack([coco.annToMask(a) for a in objects]))
        targets.append(read_target(data, name) | {"masks": masks})
    for case in cases or CASES:
        print(case)
        second_version = case.startswith("v2_")
        model = build(case)
        shapes = shapes_of(model)
        load(model, fill(shapes))
        layers = LAYERS_V2 if second_version else LAYERS
        background = BACKGROUND_V2 if second_version else BACKGROUND
        calibration = calibrate(model, images, layers, background)
        load(model, fill(shapes, calibration))
        out = {f"calibration.{k}": v for k, v in calibration.items()}
        out["shapes"] = np.array(json.dumps(shapes))
        small = small_masks(model, images)
        for i, found in enumerate(detections(model, images)):
            assert found and len(found["boxes"]) >= 20, f"picture {i}"
            pasted = found.pop("masks")[:, 0]
            out |= named(256, i, found)
            out[f"256.{i}.small"] = quantised(small[i][:SMALL])
            # Corners next to a whole number would be cut to another one after a rounding error.
            corners = expand_boxes(found["boxes"].clone(), 30 / 28)
            sure = ((corners - corners.round()).abs() > 0.02).all(1).nonzero()[:PASTED, 0]
            out[f"256.{i}.pasted_index"] = sure.numpy()
            out[f"256.{i}.pasted"] = quantised(pasted[sure][:, ::STEP, ::STEP])
            print(f"  {len(sure)} pasted, {(pasted[sure] > 0.5).float().mean():.3f} of the picture")
        out |= {f"256.{k}": v for k, v in losses(model, images, targets).items()}
        if case == "resnet18":
            out |= pasting()
        np.savez_compressed(HERE / f"mask_rcnn_{case}.npz", **out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
